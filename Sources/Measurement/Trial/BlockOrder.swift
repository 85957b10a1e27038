/// In which order the arms take their turns.
package enum BlockOrder {
    /// Columns of round `round`. Two arms: A B, B A, so that four blocks are A B B A. Three: the rows of a Latin square and
    /// then the same rows backwards, so that every arm has every place, and every neighbour on both sides, equally often.
    package static func columns(round: Int, count: Int) -> [Int] {
        let rotation = (round / (count == 2 ? 2 : 1)) % count
        var row = (0..<count).map { ($0 + (count == 2 ? 0 : rotation)) % count }
        let backwards = count == 2 ? round % 2 == 1 : (round / count) % 2 == 1
        if backwards { row.reverse() }
        return row
    }
}
