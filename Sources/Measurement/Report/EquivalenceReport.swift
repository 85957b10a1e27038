import JSONBytes

/// Whether two arms gave the same answers to the same greedy prompts. A faster frontend that says something else is not faster.
package struct EquivalenceReport: Sendable {
    /// What is compared, in the order of printing.
    package enum Aspect: String, Sendable, CaseIterable {
        case texts
        case usage
        case finishReasons = "finish_reasons"
        case toolCalls = "tool_calls"
        case tokenIDs = "token_ids"
        case logprobs
        case chunkings

        package var title: String {
            switch self {
            case .texts: "texts"
            case .usage: "usage"
            case .finishReasons: "finish reasons"
            case .toolCalls: "tool calls"
            case .tokenIDs: "token ids"
            case .logprobs: "logprobs"
            case .chunkings: "chunkings"
            }
        }
    }

    package struct Count: Sendable, Equatable {
        package let aspect: Aspect
        package let equal: Int
        package let compared: Int

        package init(aspect: Aspect, equal: Int, compared: Int) {
            self.aspect = aspect
            self.equal = equal
            self.compared = compared
        }
    }

    /// The first place where two answers differ.
    package struct Example: Sendable, Equatable {
        /// Nil for a feature.
        package let prompt: Int?
        package let feature: String?
        package let aspect: Aspect
        package let candidate: String
        package let baseline: String

        /// Answers to a feature on another endpoint, or streamed or not, differ in the same way.
        fileprivate var featureKind: Substring? { feature?.prefix { $0 != "," } }

        package var place: String { feature ?? "prompt \(prompt ?? 0)" }
    }

    /// Indices of the arms.
    package let candidate: Int
    package let baseline: Int
    /// Aspects that occur in the answers; texts always.
    package let counts: [Count]
    /// Requests for other features of the API, whose answers should be equal too; they are not among the counts.
    package let features: [Feature]
    /// Of the prompts at most `exampleLimit`; of the features one of each kind and aspect; of chunk boundaries one.
    package let examples: [Example]
    /// Prompts that an arm did not answer; they count as unequal texts.
    package let unanswered: Int
    /// Prompts whose answers differ in anything but chunk boundaries.
    package let unequalAnswers: Int

    package static let exampleLimit = 5

    package struct Feature: Sendable, Equatable {
        package let name: String
        /// What is not equal; chunk boundaries may differ.
        package let unequal: [Aspect]
        /// The arm that refused it although the other answered; that makes no answer unequal.
        package let refusedBy: Int?
    }

    /// - Parameter features: names of the last of the requests.
    init(
        candidate: Int, baseline: Int, candidates: [RequestRecord], baselines: [RequestRecord], features names: [String]
    ) {
        self.candidate = candidate
        self.baseline = baseline
        var equal: [Aspect: Int] = [:]
        var compared: [Aspect: Int] = [:]
        var examples: [Example] = []
        var unanswered = abs(candidates.count - baselines.count)
        var unequalAnswers = unanswered
        compared[.texts] = unanswered
        var features: [Feature] = []
        let firstFeature = candidates.count - names.count
        for (index, (left, right)) in zip(candidates, baselines).enumerated() {
            let isFeature = index >= firstFeature && names.indices.contains(index - firstFeature)
            let feature = isFeature ? names[index - firstFeature] : nil
            let prompt = isFeature ? nil : left.item
            var unequal: [Aspect] = []
            var refusedBy: Int?
            defer {
                if let feature { features.append(Feature(name: feature, unequal: unequal, refusedBy: refusedBy)) }
            }
            if feature != nil, left.succeeded != right.succeeded,
                (400..<600).contains(left.succeeded ? right.status : left.status)
            {
                refusedBy = left.succeeded ? baseline : candidate
                continue
            }
            guard left.succeeded, right.succeeded else {
                // The same refusal from both is an equal answer.
                let same = !left.succeeded && !right.succeeded && left.status == right.status && left.status != 0
                if !same {
                    if feature == nil {
                        unanswered += 1
                        unequalAnswers += 1
                    }
                    unequal = [.texts]
                }
                if feature == nil {
                    compared[.texts, default: 0] += 1
                    equal[.texts, default: 0] += same ? 1 : 0
                }
                if !same {
                    Self.add(
                        Example(
                            prompt: prompt, feature: feature, aspect: .texts, candidate: left.outcome,
                            baseline: right.outcome), to: &examples)
                }
                continue
            }
            for aspect in Aspect.allCases {
                guard let (first, second) = aspect.views(left, right) else { continue }
                let same = utf8Equal(first, second)
                if feature == nil {
                    compared[aspect, default: 0] += 1
                    equal[aspect, default: 0] += same ? 1 : 0
                }
                if same { continue }
                if aspect != .chunkings { unequal.append(aspect) }
                let excerpts = Self.difference(first, second)
                Self.add(
                    Example(
                        prompt: prompt, feature: feature, aspect: aspect, candidate: excerpts.0, baseline: excerpts.1),
                    to: &examples)
            }
            if !unequal.isEmpty, feature == nil { unequalAnswers += 1 }
        }
        counts = Aspect.allCases.compactMap { aspect in
            compared[aspect].map { Count(aspect: aspect, equal: equal[aspect] ?? 0, compared: $0) }
        }
        self.features = features
        self.examples = examples
        self.unanswered = unanswered
        self.unequalAnswers = unequalAnswers
    }

    /// Chunk boundaries may differ; nothing else may.
    package var answersEqual: Bool { unequalAnswers == 0 }

    package var unequalFeatures: Int { features.count { !$0.unequal.isEmpty } }

    /// Unless enough of them tell the same.
    private static func add(_ example: Example, to examples: inout [Example]) {
        let alike = examples.count {
            // Of what may differ one example is enough.
            if $0.aspect == .chunkings || example.aspect == .chunkings { return $0.aspect == example.aspect }
            guard let kind = example.featureKind else { return $0.feature == nil }
            return $0.featureKind == kind && $0.aspect == example.aspect
        }
        let limit = example.feature == nil && example.aspect != .chunkings ? exampleLimit : 1
        if alike < limit { examples.append(example) }
    }

    /// Both texts from a little before the first difference.
    private static func difference(_ left: String, _ right: String) -> (String, String) {
        let common = zip(left, right).prefix { $0 == $1 }.count
        func excerpt(_ text: String) -> String {
            let start = max(0, common - 20)
            let piece = text.dropFirst(start).prefix(60)
            return (start > 0 ? "…" : "") + piece + (text.count > start + 60 ? "…" : "")
        }
        return (excerpt(left), excerpt(right))
    }
}

extension RequestRecord {
    fileprivate var outcome: String {
        succeeded ? "answered" : "\(error?.rawValue ?? "status") \(status == 0 ? "" : String(status))"
    }
}

extension EquivalenceReport.Aspect {
    /// What the two answers say about this aspect, in a form that can be compared and shown; nil if neither says anything.
    fileprivate func views(_ left: RequestRecord, _ right: RequestRecord) -> (String, String)? {
        switch self {
        case .texts:
            return (
                left.joined { $0.reasoning + "\u{1E}" + $0.text }, right.joined { $0.reasoning + "\u{1E}" + $0.text }
            )
        case .usage:
            guard left.usage != nil || right.usage != nil else { return nil }
            // How much was cached depends on what ran before.
            func view(_ usage: TokenUsage?) -> String {
                usage.map { "prompt \($0.promptTokens), completion \($0.completionTokens)" } ?? "none"
            }
            return (view(left.usage), view(right.usage))
        case .finishReasons:
            return (left.joined { $0.finishReason ?? "none" }, right.joined { $0.finishReason ?? "none" })
        case .toolCalls:
            guard (left.choices + right.choices).contains(where: { !$0.toolCalls.isEmpty }) else { return nil }
            func view(_ choice: ChoiceRecord) -> String {
                choice.toolCalls.map { "\($0.name)(\($0.arguments))" }.joined(separator: ", ")
            }
            return (left.joined(view), right.joined(view))
        case .tokenIDs:
            guard left.choices.contains(where: { !$0.tokenIDs.isEmpty }),
                right.choices.contains(where: { !$0.tokenIDs.isEmpty })
            else { return nil }
            func view(_ choice: ChoiceRecord) -> String { choice.tokenIDs.map(String.init).joined(separator: " ") }
            return (left.joined(view), right.joined(view))
        case .logprobs:
            guard (left.choices + right.choices).contains(where: { !$0.logprobs.isEmpty }) else { return nil }
            return (left.joined(\.logprobs), right.joined(\.logprobs))
        case .chunkings:
            guard (left.choices + right.choices).contains(where: { !$0.pieces.isEmpty }) else { return nil }
            func view(_ choice: ChoiceRecord) -> String { choice.pieces.map(String.init).joined(separator: "+") }
            return (left.joined(view), right.joined(view))
        }
    }
}

extension RequestRecord {
    fileprivate func joined(_ view: (ChoiceRecord) -> String) -> String {
        choices.map(view).joined(separator: "\u{1F}")
    }
}
