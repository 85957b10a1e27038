import JSONBytes

/// `POST /invocations` (SageMaker): the shape of the body selects the route.
struct InvocationsHandler: RouteHandler {
    let chat: ChatHandler
    let completions: CompletionsHandler

    func handle(_ request: HTTPRequest, _ response: any ResponseWriter) {
        do throws(APIError) {
            let body = try RequestBody.object(request)
            if body["messages"] != nil {
                chat.handle(request, response)
            } else {
                completions.handle(request, response)
            }
        } catch {
            response.send(error)
        }
    }
}
