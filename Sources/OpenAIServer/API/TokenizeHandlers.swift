import JSONBytes
import NIOCore
import Text
import Tokenization

/// `POST /tokenize`: text or chat messages to token ids. There is no length limit but that of the body.
struct TokenizeHandler: RouteHandler {
    let api: APIContext

    private enum Input: Sendable {
        case prompt(String)
        case chat(ChatRendering)
    }

    func handle(_ request: HTTPRequest, _ response: any ResponseWriter) {
        do throws(APIError) {
            let body = try RequestBody.object(request)
            var reader = FieldReader(body)
            let model = reader.string("model")
            let (input, addSpecialTokens) = Self.read(&reader)
            let withStrings = reader.bool("return_token_strs") ?? false
            try reader.finish()
            if case .chat(let rendering) = input { try rendering.check(api.chat) }
            try api.checkModel(model)
            let limit = try api.maxModelLength()
            let api = api
            api.offload(size: request.body.readableBytes, response: response) { () throws(APIError) -> [Int32] in
                switch input {
                case .prompt(let text): return try api.model.encode(text, addSpecialTokens: addSpecialTokens)
                case .chat(let rendering):
                    let text = try api.model.render(rendering)
                    return try api.model.encode(text, addSpecialTokens: addSpecialTokens)
                }
            } then: { ids in
                response.sendJSON(Self.body(ids, api: api, maxModelLength: limit, withStrings: withStrings))
            }
        } catch {
            response.send(error)
        }
    }

    /// Two kinds of bodies. Good messages are preferred to a good prompt; without either the errors of a prompt come first.
    private static func read(_ reader: inout FieldReader) -> (Input, addSpecialTokens: Bool) {
        let hasMessages = reader.value("messages") != nil
        var chatReader = reader
        if hasMessages, let rendering = readChat(&chatReader) {
            let isEmpty = rendering.messages.isEmpty && reader.value("prompt") != nil
            if !isEmpty {
                reader = chatReader
                reader.refuseNull("add_special_tokens")
                return (.chat(rendering), reader.bool("add_special_tokens") ?? false)
            }
        }
        if reader.value("prompt") == nil { reader.report("prompt", "Field required (or `messages`)") }
        let prompt = reader.string("prompt") ?? ""
        if hasMessages, !reader.issues.isEmpty { reader.absorb(chatReader) }
        reader.refuseNull("add_special_tokens")
        return (.prompt(prompt), reader.bool("add_special_tokens") ?? true)
    }

    /// - Returns: nil if something in it is wrong, which the reader knows.
    private static func readChat(_ reader: inout FieldReader) -> ChatRendering? {
        var rendering = ChatRendering(&reader)
        rendering.tools = ChatRequest.readTools(&reader).tools
        reader.refuseNull("add_generation_prompt", "continue_final_message")
        let field = ChatRequest.mediaArguments(&reader)
        guard reader.issues.isEmpty else { return nil }
        if let field { reader.reportRule(field) }
        return rendering
    }

    private static func body(_ ids: [Int32], api: APIContext, maxModelLength: Int, withStrings: Bool) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.appendLiteral("{\"count\":")
        buffer.appendJSONInt(ids.count)
        buffer.appendLiteral(",\"max_model_len\":")
        buffer.appendJSONInt(maxModelLength)
        buffer.appendLiteral(",\"tokens\":")
        buffer.appendTokenIDs(ids)
        buffer.appendLiteral(",\"token_strs\":")
        if withStrings {
            buffer.appendLiteral("[")
            for (index, id) in ids.enumerated() {
                if index > 0 { buffer.appendLiteral(",") }
                buffer.appendJSONString(api.model.tokenizer.tokenString(id) ?? "")
            }
            buffer.appendLiteral("]")
        } else {
            buffer.appendJSONNull()
        }
        buffer.appendLiteral("}")
        return buffer
    }
}

/// `POST /detokenize`: token ids to text, special tokens kept.
struct DetokenizeHandler: RouteHandler {
    let api: APIContext

    func handle(_ request: HTTPRequest, _ response: any ResponseWriter) {
        do throws(APIError) {
            let body = try RequestBody.object(request)
            var reader = FieldReader(body)
            let model = reader.string("model")
            if body["tokens"] == nil { reader.report("tokens", "Field required") }
            reader.refuseNull("tokens")
            let ids = reader.tokenIDs("tokens", minimum: 0) ?? []
            try reader.finish()
            for token in body["tokens"]?.arrayValue ?? [] where (FieldReader.int(token) ?? 0) > Int(UInt32.max) {
                throw .badRequest("A token id does not fit 32 bits.")
            }
            try api.checkModel(model)
            let tokenizer = api.model.tokenizer
            api.offload(size: ids.count, response: response) { () throws(APIError) -> String in
                tokenizer.decode(ids, skipSpecialTokens: false)
            } then: { text in
                var buffer = ByteBuffer()
                buffer.appendLiteral("{\"prompt\":")
                buffer.appendJSONString(text)
                buffer.appendLiteral("}")
                response.sendJSON(buffer)
            }
        } catch {
            response.send(error)
        }
    }
}
