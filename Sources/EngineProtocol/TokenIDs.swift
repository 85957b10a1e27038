/// The new tokens of one output: nearly always exactly one, which is stored without an array of its own.
package struct TokenIDs: Sendable, Hashable, RandomAccessCollection, ExpressibleByArrayLiteral {
    @usableFromInline
    enum Storage: Sendable, Hashable {
        case none
        case one(Int32)
        /// Two or more.
        case many([Int32])
    }
    @usableFromInline var storage: Storage

    @inlinable
    package init() { storage = .none }

    @inlinable
    package init(_ id: Int32) { storage = .one(id) }

    package init(_ ids: [Int32]) {
        switch ids.count {
        case 0: storage = .none
        case 1: storage = .one(ids[0])
        default: storage = .many(ids)
        }
    }

    package init(arrayLiteral elements: Int32...) { self.init(elements) }

    // Inlinable all the way: the collection's own methods run once per token.
    @inlinable package var startIndex: Int { 0 }

    @inlinable package var endIndex: Int {
        switch storage {
        case .none: 0
        case .one: 1
        case .many(let ids): ids.count
        }
    }

    @inlinable
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
