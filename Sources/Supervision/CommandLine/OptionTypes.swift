import ArgumentParser
import JSONBytes

/// An option's value that is a JSON text, such as `'{"enable_thinking": false}'`.
package struct JSONOption: ExpressibleByArgument, Sendable {
    package let value: JSONValue

    package init?(argument: String) {
        guard let value = try? JSONValue.parse(argument) else { return nil }
        self.value = value
    }
}

/// A count as vLLM lets one write it: `4096`, `4k` = 4000, `4K` = 4096, likewise m/M and g/G; `auto` is -1.
package struct HumanInteger: ExpressibleByArgument, Sendable {
    package let value: Int

    package init?(argument: String) {
        let factors: [Character: Int] = [
            "k": 1000, "m": 1_000_000, "g": 1_000_000_000, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30,
        ]
        guard let last = argument.last, let factor = factors[last] else {
            guard let value = argument == "auto" ? -1 : Int(argument) else { return nil }
            self.value = value
            return
        }
        guard let number = Double(argument.dropLast()), number.isFinite, abs(number) * Double(factor) < 9e18 else {
            return nil
        }
        value = Int(number * Double(factor))
    }
}

/// Seconds, whole or not.
package struct SecondsOption: ExpressibleByArgument, Sendable {
    package let value: Double

    package init?(argument: String) {
        guard let value = Double(argument), value >= 0, value <= 1e6 else { return nil }
        self.value = value
    }

    package var duration: Duration { .milliseconds(Int64(value * 1000)) }

    /// An integer where it is one: frontends want `shutdown_timeout` that way.
    var json: JSONValue { value == value.rounded() ? .number(Int(value)) : .number(value) }
}

package enum RestartChoice: String, ExpressibleByArgument, CaseIterable, Sendable {
    case never
    case onFailure = "on-failure"
}

/// `5/10m`: at most five times in ten minutes. Units are s, m and h; without one, seconds.
package struct RestartLimit: ExpressibleByArgument, Sendable {
    package let count: Int
    package let window: Duration

    package init?(argument: String) {
        let parts = argument.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let count = Int(parts[0]), (1...1000).contains(count) else { return nil }
        let digits = parts[1].prefix(while: \.isNumber)
        let units = ["": 1, "s": 1, "m": 60, "min": 60, "h": 3600]
        guard let number = Int(digits), (1...100_000).contains(number),
            let unit = units[String(parts[1].dropFirst(digits.count))]
        else { return nil }
        self.count = count
        window = .seconds(number * unit)
    }
}

package enum EngineDataType: String, ExpressibleByArgument, CaseIterable, Sendable {
    case auto, bfloat16, float16, float32, half, float
}
package enum SchedulingPolicy: String, ExpressibleByArgument, CaseIterable, Sendable { case fcfs, priority }

extension FrontendArguments {
    mutating func set(_ name: String, _ value: String?) { if let value { self[name] = .string(value) } }
    mutating func set(_ name: String, _ value: Int?) { if let value { self[name] = .number(value) } }
    mutating func set(_ name: String, _ value: Bool?) { if let value { self[name] = .bool(value) } }
    mutating func set(_ name: String, _ value: JSONOption?) { if let value { self[name] = value.value } }
    mutating func set(_ name: String, _ value: HumanInteger?) { set(name, value?.value) }
    mutating func set(_ name: String, _ values: [String]) {
        if !values.isEmpty { self[name] = .array(values.map { .string($0) }) }
    }
}
