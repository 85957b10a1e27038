import EngineProtocol
import Glibc
import Logging
import MessagePack
import Synchronization
import ZMTP

/// Output messages: the path that every token takes.
extension ClientCore {
    /// Decodes a message. What it brings is handed out when all messages at hand have been read: a frontend that falls behind
    /// makes up for it with fewer and larger deliveries.
    func receiveOutput(_ frames: ZMTPMessage) {
        shared.messages.add(1, ordering: .relaxed)
        let payload = frames[0]
        if isSentinel(payload) {
            handleSentinel(frames)
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
        let tokens = registry.decodeOutputs(
            of: view, outputReader, frames, engines: &engines, broken: &brokenOutputs)
        if tokens > 0 { iterationObserver?(view.engineIndex, tokens) }
        for broken in brokenOutputs {
            if let slot = broken.slot, let request = registry.find(slot) {
                failAndAbort(request, .requestFailed(reason: "the engine sent a malformed output: \(broken.error)"))
            }
            logMalformed("malformed output from an engine", broken.error, affected: broken.slot == nil ? 0 : 1)
        }
        brokenOutputs.removeAll(keepingCapacity: true)
        if let finished = view.finishedRequests { handleFinished(finished) }
        if let utility = view.utilityOutput, !utilities.receive(utility) {
            logger.debug("answer to an unknown utility call", metadata: ["call_id": "\(utility.callID)"])
        }
    }

    func finishOutputs() {
        sendAborts()
        finishStep()
    }

    private func handleSentinel(_ frames: ZMTPMessage) {
        if frames.count == 3, let notice = EngineDeathNotice(identity: frames[1], instance: frames[2]),
            let index = engines.index(ofRank: notice.rank)
        {
            engineDied(index, instance: notice.instanceID)
        } else if configuration.enginesAreReplaced, engines.engines.count > 1 {
            logger.warning("an engine reports its death; the supervisor will say which one")
        } else {
            enginesDied("engine core reported fatal failure")
        }
    }

    private func isSentinel(_ payload: UnsafeRawBufferPointer) -> Bool {
        payload.count == engineCoreDeadSentinel.utf8CodeUnitCount
            && memcmp(payload.baseAddress!, engineCoreDeadSentinel.utf8Start, payload.count) == 0
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

/// An output that could not be decoded, and whose it was if that much can be read.
struct BrokenOutput {
    let slot: RequestHandle?
    let error: MessagePackError
}

extension RequestRegistry {
    /// Decodes the outputs of a message and puts each into the batch of its inbox.
    ///
    /// - Returns: tokens that the engine has read or made in the step.
    ///
    /// The token path: it works on one `inout` registry, because every access through the thread object would be checked
    /// for exclusivity at run time.
    mutating func decodeOutputs(
        of view: EngineCoreOutputsView, _ decoder: EngineCoreOutputReader, _ frames: ZMTPMessage,
        engines: inout EngineTable, broken: inout [BrokenOutput]
    ) -> Int {
        var reader = view.outputs
        var tokens = 0
        let weightEpoch = engines.weightEpoch(noting: view.weightVersion, rank: view.engineIndex)
        for _ in 0..<view.outputCount {
            let start = reader.offset
            do throws(MessagePackError) {
                var output = EngineCoreOutput()
                let id = try decoder.decode(&reader, frames: frames, into: &output)
                // Ids of aborted requests come for a while, and of a former process after a restart.
                guard let slot = find(wireID: id) else { continue }
                output.engineIndex = view.engineIndex
                tokens &+= output.tokens.count
                if let prefill = output.prefillStats { tokens &+= prefill.numPromptTokens }
                let isLast = output.finishReason != nil
                // Per token nobody asks, and another thread would have to count the string's references.
                if isLast { output.requestID = wireID(of: slot) }
                if hasNewWeights(slot, epoch: weightEpoch) || isLast, let version = view.weightVersion {
                    output.weightVersion = version
                }
                enqueue(.output(output, timestamp: view.timestamp), for: slot)
                if isLast {
                    engines[engine(of: slot)].inFlight -= 1
                    remove(slot)
                }
            } catch {
                reader.seek(to: start)
                let slot = EngineCoreOutputReader.requestID(at: reader).flatMap { find(wireID: $0) }
                broken.append(BrokenOutput(slot: slot.map { handle(of: $0) }, error: error))
                // The view has checked the framing, so this cannot fail.
                try? reader.skip()
            }
        }
        return tokens
    }
}
