import JSONBytes
import Supervision

extension Session {
    /// The model to name in requests, once the server answers one.
    /// - Parameters:
    ///   - name: nil = the server's first.
    ///   - patience: how long it may take until the first request succeeds; 0 = it is not tried.
    /// - Throws: why it does not answer.
    func readyModel(
        of target: LoadTarget, named name: String?, _ workload: Workload, patience: Duration
    ) throws -> String {
        let deadline = ContinuousClock.now + patience
        if patience > .zero { progress.note("waiting for the server ...") }
        while true {
            var reason = ""
            do {
                let model = try name ?? servedModel(of: target)
                guard patience > .zero, let first = workload.items.first else { return model }
                let template = RequestTemplate(
                    path: workload.path, body: try workload.body(first, model: model), target: target)
                let plan = LoadPlan(
                    templates: [template],
                    requests: [PlannedRequest(item: 0, seed: RequestTemplate.firstSeed)], offsets: nil,
                    concurrency: 1)
                let result = try interruption.result(of: plan, for: target, from: generator)
                guard let answer = BlockOfAnswers(result, arm: 0, block: 0, keepsText: false).requests.first else {
                    return model
                }
                if answer.succeeded { return model }
                reason = answer.errorDetail ?? answer.error?.rawValue ?? ""
                if answer.status != 0 { reason = "HTTP \(answer.status) \(reason)" }
            } catch let error as SupervisionError {
                guard patience > .zero else { throw error }
                reason = error.message
            }
            guard ContinuousClock.now < deadline else {
                throw SupervisionError(.failure, "the server was not ready in time: \(reason)")
            }
            try interruption.sleep(min(.seconds(1), deadline - .now))
        }
    }

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
