import EngineProtocol
import JSONBytes

/// Tokens whose log-probabilities at given places of the prompt a generate request asks for
/// (vLLM: `prompt_logprob_token_ids` and `prompt_logprob_start`).
struct PromptScores {
    /// Rows may differ in length.
    private var rows: [[Int32]]
    private var start: Int?

    init?(_ reader: inout FieldReader) {
        start = reader.int("prompt_logprob_start", minimum: 0)
        guard let given = reader.array("prompt_logprob_token_ids") else {
            if start != nil {
                reader.reportRule(
                    .badRequest(
                        "prompt_logprob_start requires prompt_logprob_token_ids.", param: "prompt_logprob_start"))
            }
            return nil
        }
        rows = []
        rows.reserveCapacity(given.count)
        for (index, row) in given.enumerated() {
            guard let ids = row.arrayValue?.map({ FieldReader.int($0) }), !ids.contains(nil) else {
                reader.report("prompt_logprob_token_ids.\(index)", "Input should be a valid list of integers")
                return nil
            }
            rows.append(ids.map { Int32(clamping: $0 ?? 0) })
        }
    }

    /// - Parameters:
    ///   - promptLength: in tokens.
    ///   - maximum: ids per row; -1 = no limit.
    func lower(
        promptLength: Int, vocabularySize: Int, maximum: Int, into params: inout SamplingParams
    ) throws(APIError) {
        let param = "prompt_logprob_token_ids"
        let columns = rows.reduce(0) { max($0, $1.count) }
        guard columns > 0 else {
            throw .badRequest("\(param) must be a non-empty integer array of shape [num_rows, num_ids].", param: param)
        }
        let scored = max(0, promptLength - 1 - min(start ?? 0, promptLength))
        guard rows.count == scored else {
            throw .badRequest(
                "\(param) has \(rows.count) rows, but the prompt has \(scored) scored rows "
                    + "(prompt_len - 1 - prompt_logprob_start).", param: param, value: rows.count)
        }
        guard maximum == -1 || columns <= maximum else {
            throw .badRequest(
                "Requested \(columns) token ids per row in \(param), which is greater than max allowed: \(maximum).",
                param: param, value: columns)
        }
        guard rows.allSatisfy({ $0.allSatisfy { $0 >= -1 && $0 < vocabularySize } }) else {
            throw .badRequest(
                "\(param) contain out-of-vocab token ids (-1 pads a row). Vocabulary size: \(vocabularySize)",
                param: param)
        }
        let values = rows.flatMap { $0 + Array(repeating: -1, count: columns - $0.count) }
        params.promptLogprobTokenIDs = TokenIDMatrix(rows: rows.count, columns: columns, values: values)
        params.promptLogprobStart = start
    }
}
