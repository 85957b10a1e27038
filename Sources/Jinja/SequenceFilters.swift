extension Interpreter {
    func applySequenceFilter(
        _ filter: Filter, _ value: Value, _ arguments: CallArguments
    ) throws(TemplateError) -> Value {
        switch filter {
        case .first:
            try arguments.requireNone("first")
            return try items(of: value, limit: 1).first ?? .undefined(.init("No first item, sequence was empty."))
        case .last:
            try arguments.requireNone("last")
            try requireReversible(value)
            return try items(of: value).last ?? .undefined(.init("No last item, sequence was empty."))
        case .random:
            try arguments.requireNone("random")
            return try items(of: value).randomElement() ?? .undefined(.init("No random item, sequence was empty."))
        case .list:
            try arguments.requireNone("list")
            return try list(try items(of: value))
        case .join: return .string(try join(value, arguments))
        case .reverse: return try reverse(value, arguments)
        case .sort:
            let bound = try arguments.bind("sort", ["reverse", "case_sensitive", "attribute"])
            let paths = try sortPaths(bound[2])
            let isCaseSensitive = bound[1]?.isTrue ?? false
            var keyed: [(key: Value, value: Value)] = []
            for item in try items(of: value) {
                var keys: [Value] = []
                for path in paths {
                    let key = try follow(path, from: item)
                    keys.append(isCaseSensitive ? key : ignoringCase(key))
                }
                keyed.append((keys.count == 1 ? keys[0] : try list(keys), item))
            }
            return try list(try sorted(keyed, descending: bound[0]?.isTrue ?? false))
        case .unique: return try unique(value, arguments)
        case .batch, .slice: return try chunks(filter, value, arguments)
        case .groupby: return try groups(value, arguments)
        case .items:
            try arguments.requireNone("items")
            if value.isUndefined { return .iterator(ValueIterator([], depth: 1)) }
            guard case .dict(let dict) = value else {
                throw TemplateError(.runtime, "Can only get item pairs from a mapping.")
            }
            let pairs = try items(of: .dictView(.init(dict, .items)))
            return .iterator(ValueIterator(pairs, depth: value.depth + 1))
        case .dictsort: return try sortedPairs(value, arguments)
        default:
            // attr
            let name = try string(try arguments.bind("attr", ["name"], required: 1)[0], "attr")
            if case .dict(let dict) = value, dict.value(name) != nil, !Self.methods(of: value).contains(name) {
                return .undefined(.init("'dict object' has no attribute '\(name)'"))
            }
            return try attribute(name, of: value)
        }
    }

    private func requireReversible(_ value: Value) throws(TemplateError) {
        if case .iterator = value {
            throw TemplateError(.runtime, "'generator' object is not reversible")
        }
    }

    private func join(_ value: Value, _ arguments: CallArguments) throws(TemplateError) -> String {
        let bound = try arguments.bind("join", ["d", "attribute"])
        let path = try path(bound[1])
        let hasPath = bound[1].map { !$0.isNone } ?? false
        var parts: [String] = []
        for item in try items(of: value) {
            parts.append(try printed(hasPath ? try follow(path, from: item) : item))
        }
        return try joined(
            parts, separator: try bound[0].map { value throws(TemplateError) in try printed(value) } ?? "")
    }

    private func reverse(_ value: Value, _ arguments: CallArguments) throws(TemplateError) -> Value {
        try arguments.requireNone("reverse")
        if let text = value.text {
            try charge(bytes: text.utf8.count)
            return .string(String(scalars: text.unicodeScalars.reversed()))
        }
        let reversed = Array(try items(of: value).reversed())
        // A generator is read into a list first; everything else gives an iterator.
        if case .iterator = value { return try list(reversed) }
        return .iterator(ValueIterator(reversed, depth: value.depth + 1))
    }

    /// `"a,b.c"`: one path per key to sort by.
    private func sortPaths(_ attribute: Value?) throws(TemplateError) -> [[PathPart]] {
        guard let text = attribute?.text else { return [try path(attribute)] }
        var paths: [[PathPart]] = []
        for part in text.split(by: ",") { paths.append(try path(.string(part))) }
        return paths
    }

    private func unique(_ value: Value, _ arguments: CallArguments) throws(TemplateError) -> Value {
        let bound = try arguments.bind("unique", ["case_sensitive", "attribute"])
        let isCaseSensitive = bound[0]?.isTrue ?? false
        let path = try path(bound[1])
        let source = try iterator(over: value)
        var seen: Set<HashableValue> = []
        return try lazyIterator(over: source) { [self] () throws(TemplateError) in
            while let item = try source.next() {
                try charge(2)
                let key = try follow(path, from: item)
                try requireHashable(key)
                if seen.insert(HashableValue(isCaseSensitive ? key : ignoringCase(key))).inserted { return item }
            }
            return nil
        }
    }

    private func chunks(
        _ filter: Filter, _ value: Value, _ arguments: CallArguments
    ) throws(TemplateError) -> Value {
        let isBatch = filter == .batch
        let bound = try arguments.bind(
            filter.rawValue, [isBatch ? "linecount" : "slices", "fill_with"], required: 1)
        let size = try integer(bound[0], default: 0)
        let filler = bound[1].flatMap { $0.isNone ? nil : $0 }
        let items = try items(of: value)
        var chunks: [Value] = []
        if isBatch {
            var start = 0
            while start < items.count {
                // A size below one never fills a line, so everything ends up in the first.
                let end = size > 0 ? min(items.count, start + min(size, items.count)) : items.count
                var chunk = Array(items[start..<end])
                if let filler, chunk.count < size {
                    try charge(size - chunk.count)
                    chunk += [Value](repeating: filler, count: size - chunk.count)
                }
                chunks.append(try list(chunk))
                start = end
            }
        } else {
            guard size != 0 else { throw TemplateError(.runtime, "integer division or modulo by zero") }
            try charge(max(0, size))
            var start = 0
            for index in 0..<max(0, size) {
                let hasExtra = index < items.count % size
                let end = start + items.count / size + (hasExtra ? 1 : 0)
                var chunk = Array(items[start..<end])
                if let filler, !hasExtra { chunk.append(filler) }
                chunks.append(try list(chunk))
                start = end
            }
        }
        return .iterator(ValueIterator(chunks, depth: try depth(above: chunks)))
    }

    private func groups(_ value: Value, _ arguments: CallArguments) throws(TemplateError) -> Value {
        let bound = try arguments.bind("groupby", ["attribute", "default", "case_sensitive"], required: 1)
        let path = try path(bound[0])
        let fallback = bound[1].flatMap { $0.isNone ? nil : $0 }
        let isCaseSensitive = bound[2]?.isTrue ?? false
        func key(_ item: Value) throws(TemplateError) -> Value {
            let key = try follow(path, from: item, default: fallback)
            return isCaseSensitive ? key : ignoringCase(key)
        }
        var keyed: [(key: Value, value: Value)] = []
        for item in try items(of: value) { keyed.append((try key(item), item)) }
        var groups: [Value] = []
        var members: [Value] = []
        var current: Value?
        func finish() throws(TemplateError) {
            guard let first = members.first else { return }
            let grouper = try follow(path, from: first, default: fallback)
            groups.append(.tuple(try sequence([grouper, try list(members)], isGroup: true)))
            members = []
        }
        for item in try sorted(keyed) {
            let itemKey = try key(item)
            if let current, try !equal(current, itemKey) { try finish() }
            current = itemKey
            members.append(item)
        }
        try finish()
        return try list(groups)
    }

    private func sortedPairs(_ value: Value, _ arguments: CallArguments) throws(TemplateError) -> Value {
        let bound = try arguments.bind("dictsort", ["case_sensitive", "by", "reverse"])
        let by = bound[1]?.text ?? "key"
        guard by == "key" || by == "value" else {
            throw TemplateError(.runtime, "You can only sort by either \"key\" or \"value\"")
        }
        guard case .dict(let dict) = value else {
            if case .undefined(let undefined) = value { throw TemplateError(.undefined, undefined.message) }
            throw TemplateError(.undefined, "'\(Self.describe(value))' has no attribute 'items'")
        }
        let isCaseSensitive = bound[0]?.isTrue ?? false
        var keyed: [(key: Value, value: Value)] = []
        for (key, item) in zip(dict.keys, dict.values) {
            let sortKey = by == "key" ? key : item
            keyed.append((isCaseSensitive ? sortKey : ignoringCase(sortKey), try tuple([key, item])))
        }
        return try list(try sorted(keyed, descending: bound[2]?.isTrue ?? false))
    }
}
