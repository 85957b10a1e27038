/// Unicode normalisation forms C and D on UTF-8 bytes.
struct CanonicalNormalization: Sendable {
    static let shared = CanonicalNormalization()

    private let decompositions: [UInt32: [UInt32]]
    private let combiningClasses: [UInt32: UInt8]
    private let compositions: [UInt64: UInt32]

    private enum Hangul {
        static let syllable: UInt32 = 0xAC00
        static let leading: UInt32 = 0x1100
        static let vowel: UInt32 = 0x1161
        static let trailing: UInt32 = 0x11A7
        static let leadingCount: UInt32 = 19
        static let vowelCount: UInt32 = 21
        static let trailingCount: UInt32 = 28
        static let syllableCount: UInt32 = 11172
    }

    private init() {
        var decompositions: [UInt32: [UInt32]] = [:]
        var reader = Base36Reader(UnicodeTables.decompositions)
        var scalar: UInt32 = 0
        while let distance = reader.next(), let count = reader.next() {
            scalar += distance
            decompositions[scalar] = (0..<count).map { _ in reader.next()! }
        }
        var combiningClasses: [UInt32: UInt8] = [:]
        reader = Base36Reader(UnicodeTables.combiningClasses)
        scalar = 0
        while let distance = reader.next(), let value = reader.next() {
            scalar += distance
            combiningClasses[scalar] = UInt8(value)
        }
        var compositions: [UInt64: UInt32] = [:]
        reader = Base36Reader(UnicodeTables.compositions)
        while let first = reader.next(), let second = reader.next(), let composite = reader.next() {
            compositions[UInt64(first) << 32 | UInt64(second)] = composite
        }
        self.decompositions = decompositions
        self.combiningClasses = combiningClasses
        self.compositions = compositions
    }

    /// Form D of the whole text.
    func decompose(_ text: inout [UInt8]) {
        guard text.contains(where: { $0 >= 0xC0 }) else { return }
        var scalars: [UInt32] = []
        text.withUnsafeBufferPointer { decompose($0, into: &scalars) }
        var output: [UInt8] = []
        output.reserveCapacity(text.count)
        for scalar in scalars { appendScalar(scalar, to: &output) }
        text = output
    }

    /// Form C. Stretches without any character that composition looks at (almost all text) are only scanned.
    func compose(_ text: inout [UInt8]) {
        // Everything below U+0300 is composed already; 0xCC is the first lead byte above.
        guard text.contains(where: { $0 >= 0xCC }) else { return }
        let classes = CharacterClasses.shared
        var output: [UInt8] = []
        var copied = 0
        text.withUnsafeBufferPointer { bytes in
            guard let base = bytes.baseAddress else { return }
            var index = 0
            // Start of the last character that nothing before it can combine with.
            var starter = 0
            while index < bytes.count {
                let (scalar, length) = decodeScalar(base, at: index)
                if !classes[scalar].meets(.composition) {
                    starter = index
                    index += length
                    continue
                }
                var end = index + length
                while end < bytes.count {
                    let (following, length) = decodeScalar(base, at: end)
                    guard classes[following].meets(.composition) else { break }
                    end += length
                }
                output += bytes[copied..<starter]
                composeStretch(UnsafeBufferPointer(rebasing: bytes[starter..<end]), into: &output)
                copied = end
                starter = end
                index = end
            }
            if copied > 0 { output += bytes[copied...] }
        }
        if copied > 0 { text = output }
    }

    private func composeStretch(_ bytes: UnsafeBufferPointer<UInt8>, into output: inout [UInt8]) {
        var scalars: [UInt32] = []
        decompose(bytes, into: &scalars)
        var composed: [UInt32] = []
        var starter: Int?
        // Class of the last character that was kept behind the starter.
        var lastClass: UInt8 = 0
        for scalar in scalars {
            let combiningClass = combiningClasses[scalar] ?? 0
            if let position = starter, position == composed.count - 1 || lastClass < combiningClass,
                let composite = composite(composed[position], scalar)
            {
                composed[position] = composite
                continue
            }
            composed.append(scalar)
            if combiningClass == 0 { starter = composed.count - 1 }
            lastClass = combiningClass
        }
        for scalar in composed { appendScalar(scalar, to: &output) }
    }

    private func composite(_ first: UInt32, _ second: UInt32) -> UInt32? {
        if first &- Hangul.leading < Hangul.leadingCount, second &- Hangul.vowel < Hangul.vowelCount {
            let index = (first - Hangul.leading) * Hangul.vowelCount + (second - Hangul.vowel)
            return Hangul.syllable + index * Hangul.trailingCount
        }
        if first &- Hangul.syllable < Hangul.syllableCount, (first - Hangul.syllable) % Hangul.trailingCount == 0,
            second > Hangul.trailing, second &- Hangul.trailing < Hangul.trailingCount
        {
            return first + (second - Hangul.trailing)
        }
        return compositions[UInt64(first) << 32 | UInt64(second)]
    }

    /// Appends the canonical decomposition with marks in canonical order.
    private func decompose(_ bytes: UnsafeBufferPointer<UInt8>, into scalars: inout [UInt32]) {
        guard let base = bytes.baseAddress else { return }
        var index = 0
        // Marks since the last starter, sorted before they are appended.
        var marks: [(class: UInt8, scalar: UInt32)] = []
        func flush(_ marks: inout [(class: UInt8, scalar: UInt32)], _ scalars: inout [UInt32]) {
            if marks.count > 1 {
                // `sorted` is stable in practice but not by promise: the position breaks ties.
                let order = marks.indices.sorted { (marks[$0].class, $0) < (marks[$1].class, $1) }
                for position in order { scalars.append(marks[position].scalar) }
            } else if let mark = marks.first {
                scalars.append(mark.scalar)
            }
            marks.removeAll(keepingCapacity: true)
        }
        func add(_ scalar: UInt32) {
            if scalar >= 0x300, let combiningClass = combiningClasses[scalar] {
                marks.append((combiningClass, scalar))
            } else {
                flush(&marks, &scalars)
                scalars.append(scalar)
            }
        }
        while index < bytes.count {
            let (scalar, length) = decodeScalar(base, at: index)
            index += length
            if scalar < 0xC0 {
                add(scalar)
            } else if scalar &- Hangul.syllable < Hangul.syllableCount {
                let offset = scalar - Hangul.syllable
                add(Hangul.leading + offset / (Hangul.vowelCount * Hangul.trailingCount))
                let rest = offset % (Hangul.vowelCount * Hangul.trailingCount)
                add(Hangul.vowel + rest / Hangul.trailingCount)
                if rest % Hangul.trailingCount > 0 { add(Hangul.trailing + rest % Hangul.trailingCount) }
            } else if let parts = decompositions[scalar] {
                for part in parts { add(part) }
            } else {
                add(scalar)
            }
        }
        flush(&marks, &scalars)
    }
}
