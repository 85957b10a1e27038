import ArgumentParser
import Glibc
import Supervision

/// `--live`: the frontends of a service that runs anyway.
extension ABCommand {
    /// What makes sense only for services that are started for the run.
    func validateLive() throws {
        let given: [(String, Bool)] = [
            ("--frontends", frontends != nil), ("--frontend-binary", !frontendBinary.isEmpty),
            ("--engine", service.engine != nil), ("--replay", service.replay != nil),
            ("--serve-option", !service.serveOption.isEmpty), ("options of the engine", !engineArguments.isEmpty),
        ]
        if let (name, _) = given.first(where: \.1) {
            throw ValidationError(
                "\(name): with --live nothing is started; the running service has its frontends and engine")
        }
    }

    func measureLive(_ session: Session) throws {
        let live = try LiveService(port: port, pid: pid)
        let contestants = live.contestants(headers: BenchCommand.authorization)
        let preset = load.preset(fallback: "chat")
        // The mock's model has no folder; lengths are then near what was asked for.
        let folder = try load.tokenizer ?? service.model ?? live.tokenizerFolder ?? Binaries.defaultModel(explicit: nil)
        let maker = try PromptMaker(folder: folder)
        let model = try session.servedModel(of: contestants[0].target)
        // Short answers: nobody wrote them down beforehand, and a real engine takes its time.
        let check = equivalence > 0 && featureCheck ? FeatureCheck(model: model, outputTokens: 12) : nil
        let answers = try check.map { check in
            try contestants.enumerated().map { index, contestant in
                try session.answers(to: check, from: contestant.target, arm: index, scripted: false)
            }
        }
        try compare(
            session, contestants, live.descriptions, preset: preset, maker: maker, engine: live.summary, model: model,
            check: check, featureAnswers: answers)
    }
}

extension LiveService {
    fileprivate var tokenizerFolder: String? {
        access("\(status.model)/tokenizer.json", R_OK) == 0 ? status.model : nil
    }
}
