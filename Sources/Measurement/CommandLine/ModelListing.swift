import JSONBytes
import Supervision

extension Session {
    /// The first model of the server's `/v1/models`.
    /// - Throws: if it does not tell.
    func servedModel(of target: LoadTarget) throws -> String {
        let template = RequestTemplate(getting: "/v1/models", target: target)
        let plan = LoadPlan(
            templates: [template], requests: [PlannedRequest(item: 0, seed: 0)], offsets: nil, concurrency: 1)
        let result = try interruption.result(of: plan, for: target, from: generator)
        guard let answer = result.answers.first else { throw SupervisionError(.failure, "/v1/models: no answer") }
        guard answer.status == 200, let body = try? JSONValue.parse(answer.wholeBody),
            let name = body["data"]?.arrayValue?.first?["id"]?.stringValue
        else {
            let detail = answer.errorDetail.isEmpty ? answer.wholeBody.prefix(300) : answer.errorDetail[...]
            throw SupervisionError(
                .failure,
                "/v1/models does not tell the model's name (name it with --model or --served-model-name): "
                    + (answer.status == 0 ? "" : "HTTP \(answer.status) ") + String(decoding: detail, as: UTF8.self))
        }
        return name
    }
}
