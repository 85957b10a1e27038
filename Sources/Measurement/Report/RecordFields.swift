import JSONBytes

/// Reads the numbers of one line without ever overflowing.
struct RecordFields {
    let object: JSONObject
    let line: Int

    func integer(_ name: String) throws(RawRecords.ReadError) -> Nanoseconds {
        guard let value = object[name]?.numberValue?.intValue else {
            throw RawRecords.ReadError(line: line, reason: "\(name) is missing or no integer")
        }
        return Nanoseconds(value)
    }

    func count(_ name: String) throws(RawRecords.ReadError) -> Int {
        let value = try integer(name)
        guard value >= 0 else { throw RawRecords.ReadError(line: line, reason: "\(name) is negative") }
        return Int(value)
    }

    func seed() throws(RawRecords.ReadError) -> UInt64 {
        guard let seed = object["seed"]?.stringValue.flatMap(UInt64.init) else {
            throw RawRecords.ReadError(line: line, reason: "seed is missing or no number in quotes")
        }
        return seed
    }

    func sum(_ start: Nanoseconds, _ offset: Nanoseconds) throws(RawRecords.ReadError) -> Nanoseconds {
        let (result, overflow) = start.addingReportingOverflow(offset)
        // Also bounds every later difference of two points in time.
        guard !overflow, result.magnitude < 1 << 61 else {
            throw RawRecords.ReadError(line: line, reason: "a point in time is out of range")
        }
        return result
    }

    func list(_ name: String) throws(RawRecords.ReadError) -> [Int] {
        guard let value = object[name] else { return [] }
        var result: [Int] = []
        for element in value.arrayValue ?? [.null] {
            guard let number = element.numberValue?.intValue else {
                throw RawRecords.ReadError(line: line, reason: "\(name) is no list of integers")
            }
            result.append(number)
        }
        return result
    }

    func moments(_ name: String, from start: Nanoseconds) throws(RawRecords.ReadError) -> [Nanoseconds] {
        var last = start
        var result: [Nanoseconds] = []
        for difference in try list(name) {
            last = try sum(last, Nanoseconds(difference))
            result.append(last)
        }
        return result
    }

    func tokens(_ name: String) throws(RawRecords.ReadError) -> [UInt16] {
        var result: [UInt16] = []
        for value in try list(name) {
            guard let count = UInt16(exactly: value) else {
                throw RawRecords.ReadError(line: line, reason: "\(name) has \(value), which is no count of tokens")
            }
            result.append(count)
        }
        return result
    }
}
