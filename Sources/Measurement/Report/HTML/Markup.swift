/// Text made safe for HTML and SVG, as content and as a quoted attribute.
func escaped(_ text: String) -> String {
    var result = ""
    result.reserveCapacity(text.utf8.count)
    for scalar in text.unicodeScalars {
        switch scalar {
        case "&": result += "&amp;"
        case "<": result += "&lt;"
        case ">": result += "&gt;"
        case "\"": result += "&quot;"
        case "'": result += "&#39;"
        default:
            // Control characters are not allowed in a document, not even as references.
            let allowed = scalar.value >= 0x20 && scalar.value != 0x7F || scalar == "\n" || scalar == "\t"
            result.unicodeScalars.append(allowed ? scalar : "\u{FFFD}")
        }
    }
    return result
}

/// A table with a caption that a screen reader announces; the first column holds the row headers.
struct HTMLTable {
    var caption: String
    var header: [String]
    /// Cells that are markup already.
    var rows: [[String]]
    /// Columns that hold text and are aligned to the left; the first one always is.
    var textColumns: Set<Int> = []

    var html: String {
        func cell(_ tag: String, _ column: Int, _ content: String, _ scope: String = "") -> String {
            let style = column == 0 || textColumns.contains(column) ? "" : " class=\"n\""
            return "<\(tag)\(scope)\(style)>\(content)</\(tag)>"
        }
        let head = header.enumerated().map { cell("th", $0, $1, " scope=\"col\"") }.joined()
        let body = rows.map { row in
            let cells = row.enumerated().map { column, content in
                column == 0 ? cell("th", column, content, " scope=\"row\"") : cell("td", column, content)
            }
            return "<tr>\(cells.joined())</tr>\n"
        }
        return """
            <div class="scroll"><table><caption>\(caption)</caption>
            <thead><tr>\(head)</tr></thead>
            <tbody>
            \(body.joined())</tbody></table></div>

            """
    }
}

/// One figure of the page: a drawing, what it shows, and its numbers for those who cannot see it or want to copy them.
struct Figure {
    /// Used in element ids.
    let name: String
    let title: String
    /// For people who do not see the drawing.
    let summary: String
    let caption: String
    let drawing: SVGDrawing
    let numbers: HTMLTable

    var html: String {
        """
        <figure id="\(name)">
        <svg viewBox="0 0 \(Int(drawing.width)) \(Int(drawing.height))" role="img" aria-labelledby="\(name)-t \(name)-d">
        <title id="\(name)-t">\(escaped(title))</title><desc id="\(name)-d">\(escaped(summary))</desc>
        \(drawing.body)</svg>
        <figcaption><b>\(escaped(title)).</b> \(escaped(caption))</figcaption>
        <details><summary>Numbers</summary>
        \(numbers.html)</details>
        </figure>

        """
    }
}
