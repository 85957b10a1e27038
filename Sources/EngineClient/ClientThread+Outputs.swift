import EngineProtocol
import Glibc
import Logging
import MessagePack
import ZeroMQ

/// Output messages: the path that every token takes.
extension ClientThread {
    /// Messages handled before other sockets get their turn.
    private static let messagesPerTurn = 64

    func receiveOutputs() {
        do throws(ZMQError) {
            for _ in 0..<Self.messagesPerTurn {
                guard try sockets.output.receive(into: frames) else { break }
                handleMessage()
                // One delivery per inbox and message: readers of streams see tokens as early as they exist.
                finishStep()
            }
        } catch {
            logger.error("receiving outputs failed", metadata: ["error": "\(error)"])
        }
        sendAborts()
    }

    private func handleMessage() {
        let payload = frames[0]
        if isSentinel(payload) {
            enginesDied("engine core reported fatal failure")
            return
        }
        let view: EngineCoreOutputsView
        do throws(MessagePackError) {
            view = try EngineCoreOutputsView(decoding: payload)
        } catch {
            salvage(payload, error)
            return
        }
        let engine = engines.index(ofRank: view.engineIndex)
        if let stats = view.schedulerStats, let engine, engines[engine].isRegistered {
            engines[engine].update(stats)
            statsObserver?(view.engineIndex, stats)
        }
        var reader = view.outputs
        for _ in 0..<view.outputCount { handleOutput(&reader, timestamp: view.timestamp) }
        if let finished = view.finishedRequests { handleFinished(finished) }
        if let utility = view.utilityOutput, !utilities.receive(utility) {
            logger.debug("answer to an unknown utility call", metadata: ["call_id": "\(utility.callID)"])
        }
    }

    private func isSentinel(_ payload: UnsafeRawBufferPointer) -> Bool {
        payload.count == engineCoreDeadSentinel.utf8CodeUnitCount
            && memcmp(payload.baseAddress!, engineCoreDeadSentinel.utf8Start, payload.count) == 0
    }

    /// Decodes one output and puts it into the batch of its inbox. The framing was checked: it can always be skipped.
    private func handleOutput(_ reader: inout MessagePackReader, timestamp: Double) {
        let start = reader.offset
        do throws(MessagePackError) {
            var output = EngineCoreOutput()
            let id = try outputReader.decode(&reader, frames: frames, into: &output)
            // Ids of aborted requests come for a while, and of a former process after a restart.
            guard let slot = registry.find(wireID: id) else { return }
            output.requestID = registry.wireID(of: slot)
            if output.finishReason == nil {
                registry.enqueue(.output(output, timestamp: timestamp), for: slot)
            } else {
                finish(slot, .output(output, timestamp: timestamp))
            }
        } catch {
            reader.seek(to: start)
            let slot = EngineCoreOutputReader.requestID(at: reader).flatMap { registry.find(wireID: $0) }
            if let slot { failAndAbort(slot, .requestFailed(reason: "the engine sent a malformed output: \(error)")) }
            logMalformed("malformed output from an engine", error, affected: slot == nil ? 0 : 1)
            if (try? reader.skip()) == nil { reader.seek(to: reader.count) }
        }
    }

    /// Ids that the engine is done with. Most are gone already; one without a last output would wait for ever.
    private func handleFinished(_ ids: [String]) {
        for var id in ids {
            let slot = id.withUTF8 { registry.find(wireID: UnsafeRawBufferPointer($0)) }
            if let slot { finish(slot, .failed(.requestFailed(reason: "the engine ended the request"))) }
        }
    }

    /// A message whose framing is broken: tokens are lost, so the requests that it can be seen to be about must fail.
    private func salvage(_ payload: UnsafeRawBufferPointer, _ error: MessagePackError) {
        var reader = MessagePackReader(payload)
        var affected = 0
        if let fields = try? reader.readArrayHeader(), fields >= 2, (try? reader.skip()) != nil,
            let count = try? reader.readArrayHeader()
        {
            for _ in 0..<count {
                guard let id = EngineCoreOutputReader.requestID(at: reader) else { break }
                if let slot = registry.find(wireID: id) {
                    failAndAbort(slot, .requestFailed(reason: "the engine sent a malformed message: \(error)"))
                    affected += 1
                }
                guard (try? reader.skip()) != nil else { break }
            }
        }
        logMalformed("malformed message from an engine", error, affected: affected)
    }
}
