/// Finds out whether a template loops over the parts of a message's content (vLLM: content format `auto`).
enum ContentFormatDetection {
    static func detect(_ source: String) -> ChatTemplate.ContentFormat {
        // A loop over `….content` / `…['content']` means a list of parts, except `for … in content | …` filters on strings.
        let bytes = Array(source.utf8)
        var index = 0
        while let tag = firstRange(of: Array("{%".utf8), in: bytes, from: index) {
            let end = firstRange(of: Array("%}".utf8), in: bytes, from: tag) ?? bytes.count
            index = end
            let statement = String(decoding: bytes[(tag + 2)..<end], as: UTF8.self)
            var words = statement.split(whereSeparator: { " \n\t-+".contains($0) })
            guard words.first == "for", let position = words.firstIndex(of: "in") else { continue }
            words.removeFirst(position + 1)
            guard let iterated = words.first else { continue }
            if iterated == "content" || iterated.hasSuffix(".content") || iterated.hasSuffix("['content']")
                || iterated.hasSuffix("[\"content\"]")
            {
                return .openai
            }
        }
        return .string
    }
}
