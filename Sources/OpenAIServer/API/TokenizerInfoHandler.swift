import Chat
import JSONBytes
import NIOCore
import Text

/// `GET /tokenizer_info`: the tokenizer's configuration as its folder has it, with the chat template in use. Exists
/// with `--enable-tokenizer-info-endpoint`.
struct TokenizerInfoHandler: RouteHandler {
    private let page: ByteBuffer

    /// - Throws: an error that names `tokenizer_config.json` if it cannot be read.
    init(model: ServedModel, folder: String) throws(TextError) {
        var info = try TextModel.tokenizerConfiguration(folder: folder)
        if info["tokenizer_class"] == nil { info["tokenizer_class"] = .string("PreTrainedTokenizerFast") }
        if let source = model.chatTemplate?.source { info["chat_template"] = .string(source) }
        var page = ByteBuffer()
        page.appendJSON(.object(info))
        self.page = page
    }

    func handle(_ request: HTTPRequest, _ response: any ResponseWriter) { response.sendJSON(page) }
}
