import JSONBytes

/// What the requests are like. How they are offered is a `LoadPoint`.
package struct Workload: Sendable {
    package enum Endpoint: String, Sendable, CaseIterable {
        case chat, completions

        package var path: String { self == .chat ? "/v1/chat/completions" : "/v1/completions" }
    }

    package struct Item: Sendable {
        package enum Prompt: Sendable {
            case text(String)
            case ids([Int32])
            /// The JSON of a `messages` list.
            case messages(JSONValue)
        }

        package var prompt: Prompt
        package var outputTokens: Int
        /// From the start of a trace.
        package var arrival: Nanoseconds?

        package init(prompt: Prompt, outputTokens: Int, arrival: Nanoseconds? = nil) {
            self.prompt = prompt
            self.outputTokens = outputTokens
            self.arrival = arrival
        }
    }

    package var name: String
    package var summary: String
    package var endpoint: Endpoint
    /// Where the server has it.
    package var path: String
    package var streaming: Bool
    package var items: [Item]
    /// Whether blocks send the items in their order.
    package var keepsOrder: Bool
    /// Nil = the server's.
    package var temperature: Double?
    package var ignoresEOS: Bool
    /// Token ids in every chunk, so that tokens per chunk are known also when they are merged.
    package var asksForTokenIDs: Bool
    /// Members that are added to every body.
    package var extraBody: JSONObject

    package init(
        name: String, summary: String, endpoint: Endpoint = .chat, path: String? = nil, streaming: Bool = true,
        items: [Item] = [], keepsOrder: Bool = false,
        temperature: Double? = 0, ignoresEOS: Bool = true, asksForTokenIDs: Bool = false,
        extraBody: JSONObject = JSONObject()
    ) {
        self.name = name
        self.summary = summary
        self.endpoint = endpoint
        self.path = path ?? endpoint.path
        self.streaming = streaming
        self.items = items
        self.keepsOrder = keepsOrder
        self.temperature = temperature
        self.ignoresEOS = ignoresEOS
        self.asksForTokenIDs = asksForTokenIDs
        self.extraBody = extraBody
    }

    /// - Parameter model: as the server calls it; nil leaves it out, for servers with one model.
    package func templates(for target: LoadTarget, model: String?) throws -> [RequestTemplate] {
        try items.map { RequestTemplate(path: path, body: try body($0, model: model), target: target) }
    }

    /// - Throws: if prompt and endpoint do not fit.
    package func body(_ item: Item, model: String?) throws -> String {
        var body = JSONObject()
        if let model { body["model"] = .string(model) }
        switch (endpoint, item.prompt) {
        case (.chat, .messages(let messages)): body["messages"] = messages
        case (.chat, .text(let text)):
            body["messages"] = .array([
                .object(JSONObject([("role", .string("user")), ("content", .string(text))]))
            ])
        case (.completions, .text(let text)): body["prompt"] = .string(text)
        case (.completions, .ids(let ids)): body["prompt"] = .array(ids.map { .number(Int($0)) })
        case (.chat, .ids): throw WorkloadError("prompts of token ids need the completions endpoint")
        case (.completions, .messages): throw WorkloadError("messages need the chat endpoint")
        }
        body["max_tokens"] = .number(item.outputTokens)
        if let temperature { body["temperature"] = .number(temperature) }
        if ignoresEOS { body["ignore_eos"] = .bool(true) }
        if asksForTokenIDs { body["return_token_ids"] = .bool(true) }
        body["seed"] = .number(Int(RequestTemplate.firstSeed))
        body["stream"] = .bool(streaming)
        if streaming { body["stream_options"] = .object(JSONObject([("include_usage", .bool(true))])) }
        for (key, value) in extraBody.pairs { body[key] = value }
        return JSONValue.object(body).serialized()
    }

    /// The requests of one block: items in an order that the seed decides (unless they keep theirs, as a trace does), each with a seed of its own.
    package func requests(count: Int, seed: UInt64, isTrace: Bool = false) -> [PlannedRequest] {
        var generator = SeededGenerator(seed: seed)
        var order = Array(items.indices)
        if !isTrace, !keepsOrder { order.shuffle(using: &generator) }
        // 52 random bits keep all seeds within 16 digits and within what a double holds.
        let first = RequestTemplate.firstSeed + generator.next() >> 12
        return (0..<count).map { index in
            let item = order[index % order.count]
            return PlannedRequest(
                item: item, seed: first + UInt64(index), expectedTokens: streaming ? items[item].outputTokens : 0)
        }
    }
}

extension Workload {
    /// A workload by name, with the load and the engine that belong to it.
    package struct Preset: Sendable {
        package var name: String
        package var summary: String
        package var endpoint: Endpoint
        package var streaming = true
        package var usesIDs = false
        package var inputTokens: Int
        package var outputTokens: Int
        package var load: LoadPoint
        /// Of a block; grows with the concurrency where that is larger.
        package var requests: Int
        /// Options of the mock engine.
        package var mock: [String] = []
    }

    package static let presets: [Preset] = [
        Preset(
            name: "chat", summary: "streaming chat, 10 ms steps, open loop", endpoint: .chat, inputTokens: 512,
            outputTokens: 128, load: .poisson(rate: 40), requests: 200, mock: ["--mock-itl-ms", "10"]),
        Preset(
            name: "chat-20ms", summary: "streaming chat, 20 ms steps, N streams", endpoint: .chat, inputTokens: 32,
            outputTokens: 512, load: .concurrency(64), requests: 64, mock: ["--mock-itl-ms", "20"]),
        Preset(
            name: "chat-max", summary: "streaming chat, engine as fast as possible, N streams", endpoint: .chat,
            inputTokens: 32, outputTokens: 512, load: .concurrency(64), requests: 256),
        Preset(
            name: "long-text", summary: "9k-token text prompt, short streamed answer", endpoint: .completions,
            inputTokens: 9000, outputTokens: 16, load: .concurrency(1), requests: 40),
        Preset(
            name: "long-ids", summary: "8k token ids, short streamed answer", endpoint: .completions, usesIDs: true,
            inputTokens: 8192, outputTokens: 16, load: .concurrency(1), requests: 80),
        Preset(
            name: "whole", summary: "chat without streaming", endpoint: .chat, streaming: false, inputTokens: 128,
            outputTokens: 128, load: .concurrency(16), requests: 400),
    ]
}
