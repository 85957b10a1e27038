import Supervision
import Testing

@Suite struct RestartPolicyTests {
    private let start = ContinuousClock.now

    @Test func firstRestartIsImmediateAndAStormSlowsDown() {
        var policy = RestartPolicy(limit: 100, window: .seconds(600))
        let delays = (0..<9).map { policy.delay(now: start + .milliseconds($0)) }
        #expect(delays[0] == .zero)
        #expect(delays[1] == .milliseconds(250) && delays[2] == .milliseconds(500) && delays[3] == .seconds(1))
        #expect(delays[8] == .seconds(10))
    }

    @Test func rareCrashesAreAnsweredAtOnce() {
        var policy = RestartPolicy(limit: 100, window: .seconds(600))
        for minute in 0..<50 { #expect(policy.delay(now: start + .seconds(60 * minute)) == .zero) }
    }

    @Test func limitHoldsWithinTheWindowOnly() {
        var policy = RestartPolicy(limit: 2, window: .seconds(600))
        #expect(policy.delay(now: start) != nil)
        #expect(policy.delay(now: start + .seconds(100)) != nil)
        #expect(policy.delay(now: start + .seconds(200)) == nil)
        #expect(policy.delay(now: start + .seconds(601)) != nil)
        #expect(policy.delay(now: start + .seconds(602)) == nil)
    }

    @Test func neverMeansNever() {
        var policy = RestartPolicy.never
        #expect(policy.delay(now: start) == nil)
    }

    @Test func limitsAreReadFromText() {
        let good: [(String, Int, Duration)] = [
            ("5/10m", 5, .seconds(600)), ("1/30", 1, .seconds(30)), ("3/2h", 3, .seconds(7200)),
            ("5/10min", 5, .seconds(600)),
        ]
        for (text, count, window) in good {
            let limit = RestartLimit(argument: text)
            #expect(limit?.count == count && limit?.window == window)
        }
        for text in ["", "5", "5/", "/10", "0/10m", "5/10d", "5/-1", "5/1m/2", "99999999999999999999/1"] {
            #expect(RestartLimit(argument: text) == nil, "\(text)")
        }
    }
}
