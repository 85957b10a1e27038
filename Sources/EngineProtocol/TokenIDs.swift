/// The new tokens of one output: nearly always exactly one, which is stored without an array of its own.
package struct TokenIDs: Sendable, Hashable, RandomAccessCollection, ExpressibleByArrayLiteral {
    private enum Storage: Sendable, Hashable {
        case none
        case one(Int32)
        /// Two or more.
        case many([Int32])
    }
    private var storage: Storage

    package init() { storage = .none }

    package init(_ id: Int32) { storage = .one(id) }

    package init(_ ids: [Int32]) {
        switch ids.count {
        case 0: storage = .none
        case 1: storage = .one(ids[0])
        default: storage = .many(ids)
        }
    }

    package init(arrayLiteral elements: Int32...) { self.init(elements) }

    package var startIndex: Int { 0 }

    package var endIndex: Int {
        switch storage {
        case .none: 0
        case .one: 1
        case .many(let ids): ids.count
        }
    }

    package subscript(position: Int) -> Int32 {
        switch storage {
        case .one(let id) where position == 0: return id
        case .many(let ids): return ids[position]
        default: preconditionFailure("token index out of range")
        }
    }

    package var array: [Int32] {
        switch storage {
        case .none: []
        case .one(let id): [id]
        case .many(let ids): ids
        }
    }
}
