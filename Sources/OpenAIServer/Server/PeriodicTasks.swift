/// What the main thread does every now and then, between the events it waits for.
struct PeriodicTasks {
    private struct Task {
        let interval: Double
        var due: Double
        let work: () -> Void
    }

    private var tasks: [Task] = []

    /// - Parameter seconds: between two runs; the first one is that far away.
    mutating func add(every seconds: Double, _ work: @escaping () -> Void) {
        tasks.append(Task(interval: seconds, due: MonotonicClock.now() + seconds, work: work))
    }

    /// Runs what is due.
    /// - Returns: how long to wait until the next task is due; nil = there is none.
    mutating func run() -> Int32? {
        let now = MonotonicClock.now()
        for index in tasks.indices where tasks[index].due <= now {
            tasks[index].due = now + tasks[index].interval
            tasks[index].work()
        }
        guard let next = tasks.map(\.due).min() else { return nil }
        return Int32(min(max(0, (next - MonotonicClock.now()) * 1000), 1e9).rounded(.up))
    }
}
