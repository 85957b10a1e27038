import Chat
import JSONBytes
import NIOCore
import Text
import Tokenization

/// `GET /tokenizer_info`: the tokenizer's configuration as its folder has it, with the chat template in use. Exists
/// with `--enable-tokenizer-info-endpoint`.
struct TokenizerInfoHandler: RouteHandler {
    private let page: ByteBuffer

    /// - Throws: an error that names `tokenizer_config.json` if it cannot be read.
    init(model: ServedModel, folder: String) throws(TextError) {
        var info = try TextModel.tokenizerConfiguration(folder: folder)
        // vLLM shows the class it wraps the configured one in.
        let name = info["tokenizer_class"]?.stringValue ?? "TokenizersBackend"
        info["tokenizer_class"] = .string("TokenizerPoolCached" + name)
        if let source = model.chatTemplate?.source { info["chat_template"] = .string(source) }
        if info["truncation_side"] == nil { info["truncation_side"] = .string("left") }
        info["name_or_path"] = .string(folder)
        info["is_local"] = .bool(true)
        // Nothing is ever downloaded here.
        info["local_files_only"] = .bool(true)
        info["added_tokens_decoder"] = .object(
            JSONObject(model.tokenizer.addedTokens.map { ("\($0.id)", .string($0.content)) }))
        var page = ByteBuffer()
        page.appendJSON(.object(info))
        self.page = page
    }

    func handle(_ request: HTTPRequest, _ response: any ResponseWriter) { response.sendJSON(page) }
}
