/// Columns that stand below each other, with or without ANSI colours.
struct TerminalTable {
    struct Cell {
        var text: String
        var style = TerminalStyle.plain
        var alignRight = true
    }

    private let rows: [[Cell]]
    private let widths: [Int]

    init(_ rows: [[Cell]]) {
        self.rows = rows
        widths = (0..<(rows.map(\.count).max() ?? 0)).map { column in
            rows.compactMap { $0.count > column ? $0[column].text.count : nil }.max() ?? 0
        }
    }

    /// Of the longest line.
    var width: Int { widths.reduce(0, +) + 2 * max(0, widths.count - 1) }

    func lines(colour: Bool) -> [String] {
        rows.map { row in
            let cells = row.enumerated().map { column, cell in
                let padding = String(repeating: " ", count: widths[column] - cell.text.count)
                let text = cell.style.paint(cell.text, colour)
                return cell.alignRight ? padding + text : text + padding
            }
            let line = cells.joined(separator: "  ")
            return String(line.reversed().drop { $0 == " " }.reversed())
        }
    }
}

enum TerminalStyle {
    case plain, strong, faint, good, bad

    private var code: String? {
        switch self {
        case .plain: nil
        case .strong: "1"
        case .faint: "2"
        case .good: "32"
        case .bad: "31"
        }
    }

    func paint(_ text: String, _ colour: Bool) -> String {
        guard colour, let code, !text.isEmpty else { return text }
        return "\u{1B}[\(code)m\(text)\u{1B}[0m"
    }
}

/// Answers and names come from elsewhere: no control character reaches the terminal.
func printable(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator:
            result += "\\u{\(String(scalar.value, radix: 16))}"
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result
}
