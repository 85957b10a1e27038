import Foundation
import FoundationXML
import Measurement
import Testing

@Suite struct HTMLReportTests {
    private let fast = DifferenceOptions(resamples: 50)

    private func small(_ change: (inout SyntheticRun) -> Void = { _ in }) -> SyntheticRun {
        var synthetic = SyntheticRun(rounds: 4, noiseFloorRounds: 2, requestsPerBlock: 8)
        change(&synthetic)
        return synthetic
    }

    /// Collects what a strict XML reader sees; HTML's own void elements are closed for it first.
    private final class Reader: NSObject, XMLParserDelegate {
        var elements: [String] = []
        var ids: [String] = []
        var references: [String] = []
        var error: String?

        func parser(
            _ parser: XMLParser, didStartElement name: String, namespaceURI: String?, qualifiedName: String?,
            attributes: [String: String]
        ) {
            elements.append(name)
            if let id = attributes["id"] { ids.append(id) }
            for key in ["src", "href", "xlink:href", "action", "onload", "onclick"] {
                if let value = attributes[key] { references.append("\(name) \(key)=\(value)") }
            }
            if let labels = attributes["aria-labelledby"] { labelled += labels.split(separator: " ").map(String.init) }
        }

        var labelled: [String] = []

        func parser(_ parser: XMLParser, parseErrorOccurred parseError: any Error) {
            error = "\(parseError) at line \(parser.lineNumber)"
        }
    }

    private func read(_ html: String) -> Reader {
        let closed = html.replacing("<!DOCTYPE html>\n", with: "").split(
            separator: "\n", omittingEmptySubsequences: false
        )
        .map { $0.hasPrefix("<meta ") ? $0.dropLast() + "/>" : $0 }.joined(separator: "\n")
        let reader = Reader()
        let parser = XMLParser(data: Data(closed.utf8))
        parser.delegate = reader
        _ = parser.parse()
        return reader
    }

    @Test func pageIsWellFormedAndStandsAlone() {
        for synthetic in [
            small(), small { $0.streaming = false }, small { $0.stamps = false },
            small {
                $0.arms = ["swift", "rust", "python"]
                $0.slowdown = [1, 1.3, 2.5]
                $0.loads = [.poisson(rate: 10), .concurrency(64)]
            },
            small { $0.arms = ["only"] },
        ] {
            let html = HTMLReport(Report(synthetic.make(), options: fast)).text
            let page = read(html)
            #expect(page.error == nil, "\(page.error ?? "")")
            #expect(page.references.isEmpty && !page.elements.contains("script") && !page.elements.contains("link"))
            #expect(Set(page.ids).count == page.ids.count)
            #expect(Set(page.labelled).isSubset(of: page.ids))
            #expect(page.elements.count { $0 == "figure" } == page.elements.count { $0 == "svg" })
            #expect(page.elements.count { $0 == "figcaption" } == page.elements.count { $0 == "figure" })
            // Each drawing has its numbers as a table.
            #expect(page.elements.count { $0 == "details" } == page.elements.count { $0 == "figure" })
            #expect(!html.contains("nan") && !html.contains("inf "))
        }
    }

    @Test func figuresFollowWhatWasMeasured() {
        func figures(_ synthetic: SyntheticRun) -> Set<String> {
            Set(
                read(HTMLReport(Report(synthetic.make(), options: fast)).text).ids.filter {
                    !$0.hasSuffix("-t") && !$0.hasSuffix("-d")
                })
        }
        #expect(figures(small()) == ["differences-1", "ecdf-ttft-added", "ecdf-token-path", "heat", "cost", "tail"])
        #expect(
            figures(small { $0.stamps = false }) == ["differences-1", "ecdf-ttft", "ecdf-itl", "heat", "cost", "tail"])
        #expect(figures(small { $0.streaming = false }) == ["differences-1", "ecdf-e2el-added", "cost", "tail"])
        let sweep = figures(small { $0.loads = [.poisson(rate: 10), .poisson(rate: 20)] })
        #expect(sweep.isSuperset(of: ["heat-l0", "heat-l1", "cost", "tail"]))
    }

    @Test func nothingFromOutsideBecomesMarkup() {
        var run = small().make()
        let attack = "</title><script>alert(1)</script>\" onload='x' &amp; \u{1B}[0m\u{0}"
        run.description.arms[0].name = attack
        run.description.arms[1].version = attack
        run.description.arguments = [attack]
        run.description.engine = attack
        run.description.workload.summary = attack
        run.description.machine.cpuModel = attack
        run.blocks[0].dropped = attack
        run.voidReasons = [attack]
        run.equivalence[1][0].choices[0].text = attack
        run.equivalence[1][1].error = .errorEvent
        let html = HTMLReport(Report(run, options: fast)).text
        #expect(!html.contains("<script") && !html.contains("\u{1B}") && !html.contains("\u{0}"))
        let page = read(html)
        #expect(page.error == nil, "\(page.error ?? "")")
        #expect(page.references.isEmpty)
    }
}
