import Glibc

package enum ProcessEnvironment {
    /// All variables of this process; Foundation would do the same and cost its start-up time.
    package static func variables() -> [String: String] {
        var result: [String: String] = [:]
        var entry = environ
        while let text = entry.pointee {
            let line = String(cString: text)
            if let mark = line.firstIndex(of: "=") {
                result[String(line[..<mark])] = String(line[line.index(after: mark)...])
            }
            entry += 1
        }
        return result
    }
}
