import JSONBytes
import Jinja
import TestSupport
import Testing

/// Templates that try to use up the machine end in an error of the right kind.
@Suite struct LimitTests {
    private static func times(_ count: Int, _ text: String) -> String { String(repeating: text, count: count) }

    private static func chain(_ operand: String, _ symbol: String) -> String {
        "{{ " + Array(repeating: operand, count: 1500).joined(separator: " \(symbol) ") + " }}"
    }

    private func kind(_ source: String, limits: RenderLimits = RenderLimits()) -> TemplateError.Kind? {
        do throws(TemplateError) {
            _ = try Template(source).render([("s", .string("x")), ("xs", .array([.null, .null]))], limits: limits)
            return nil
        } catch {
            return error.kind
        }
    }

    @Test(arguments: [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 10000000000 }}",
        "{{ 'x' * 9223372036854775807 }}",
        "{{ [0] * 9223372036854775807 }}",
        "{{ ('xx' * 9223372036854775807)|length }}",
        "{% set ns = namespace(t='x') %}{% for i in range(60) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
        "{% set ns = namespace(t='x') %}{% for i in range(60) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
        "{% set ns = namespace(t=[1]) %}{% for i in range(60) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
        "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
        "{{ ('a' * 100000).replace('', 'b' * 100000) }}",
        "{{ ('\\n' * 100000)|indent('b' * 100000) }}",
        "{{ 'a'|center(10000000000) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'a'.ljust(10000000000) }}",
        "{{ 'a'.zfill(10000000000) }}",
        "{{ ('\\t' * 100000).expandtabs(1000000) }}",
        "{{ [1]|tojson(indent=10000000000) }}",
        "{{ [1]|batch(10000000000, 0)|list }}",
        "{{ range(10)|slice(10000000000)|list }}",
        "{{ (['a'] * 100000)|join('b' * 100000) }}",
        "{% set ns = namespace(d=[1]) %}{% for i in range(60) %}{% set ns.d = [ns.d, ns.d] %}{% endfor %}{{ ns.d }}",
        "{% set ns = namespace(d=[1]) %}{% for i in range(60) %}{% set ns.d = [ns.d, ns.d] %}{% endfor %}{{ ns.d|tojson }}",
        "{% set ns = namespace(a=1, b=1) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}"
            + "{% endfor %}{{ ns.a == ns.b }}",
        "{% set ns = namespace(a=1, b=1) %}{% for i in range(60) %}{% set ns.a = (ns.a, ns.a) %}{% endfor %}{{ {ns.a: 1} }}",
    ])
    func workIsBounded(source: String) {
        let limits = RenderLimits(fuel: 2_000_000, outputBytes: 1 << 20)
        let kind = kind(source, limits: limits)
        #expect(kind == .tooMuchWork || kind == .outputTooLarge, "\(String(describing: kind))")
    }

    @Test func outputIsBounded() {
        let limits = RenderLimits(outputBytes: 1000)
        #expect(kind("{% for i in range(1000) %}{{ s }}{% endfor %}", limits: limits) == nil)
        #expect(kind("{% for i in range(1001) %}{{ s }}{% endfor %}", limits: limits) == .outputTooLarge)
        #expect(kind("{% for i in range(1001) %}x{% endfor %}", limits: limits) == .outputTooLarge)
    }

    @Test(arguments: [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{% if true %}{{ a() }}{% endif %}{% endmacro %}{{ a() }}",
        "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{% call m() %}{% endcall %}",
        "{% for x in [[]] recursive %}{{ loop([[1]]) }}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=1) %}{% for i in range(5000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}",
        "{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = ns.x|map('string') %}{% endfor %}{{ ns.x|list }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = (ns.x,) %}{% endfor %}",
        "{% set ns = namespace(x='') %}{% for i in range(5000) %}{% set ns.x = cycler(ns.x) %}{% endfor %}",
        "{{ " + times(5000, "(") + "1" + times(5000, ")") + " }}",
        "{{ " + times(5000, "[") + times(5000, "]") + " }}",
        "{{ " + times(5000, "not ") + "1 }}",
        "{{ " + times(5000, "-") + "1 }}",
        "{{ s" + times(5000, "|upper") + " }}",
        "{{ s" + times(5000, ".a") + " }}",
        "{{ s" + times(5000, "[0]") + " }}",
        "{{ " + times(5000, "1 if 1 else ") + "1 }}",
        times(5000, "{% if true %}") + times(5000, "{% endif %}"),
        times(200, "{% for x in xs %}") + times(200, "{% endfor %}"),
    ])
    func nestingIsBounded(source: String) {
        #expect(kind(source) == .tooDeep)
    }

    @Test(arguments: [
        // Long, but flat: chains must not count as nesting.
        chain("1", "+"),
        chain("s", "~"),
        chain("true", "and"),
        "{% if 0 %}" + times(1500, "{% elif 0 %}") + "{% endif %}",
        // Objects that refer to each other in a circle or a long chain are released without recursion.
        "{% set ns = namespace() %}{% set ns.self = ns %}{% set ns.list = [ns, ns] %}",
        "{% set ns = namespace() %}{% macro m() %}{{ ns.m }}{% endmacro %}{% set ns.m = m %}",
        "{% set ns = namespace(f='') %}{% macro a(f) %}{% macro b() %}{{ f() }}{% endmacro %}{% set ns.f = b %}{% endmacro %}"
            + "{% for i in range(20000) %}{% set _ = a(ns.f) %}{% endfor %}",
        "{% set ns = namespace(n=1) %}{% for i in range(50000) %}{% set ns.n = namespace(n=ns.n) %}{% endfor %}",
        "{% set ns = namespace(l='') %}{% for i in range(20000) %}{% for x in [1] %}"
            + "{% if loop.changed(ns.l) %}{% set ns.l = loop %}{% endif %}{% endfor %}{% endfor %}",
        "{% set it = xs|select %}{% set ns = namespace(it=it) %}",
    ])
    func longChainsAreFine(source: String) {
        #expect(kind(source) == nil)
    }

    @Test func searchesAreLinear() throws {
        // Quadratic searching would need 10^11 steps here.
        let template = try Template(
            """
            {% set text = 'a' * 400000 %}{% set part = 'a' * 200000 ~ 'b' %}\
            {{ part in text }}{{ text.find(part) }}{{ text.rfind(part) }}{{ text.count(part) }}\
            {{ text.split(part)|length }}{{ text.rsplit(part)|length }}{{ text.replace(part, '')|length }}
            """)
        #expect(try template.render([]) == "False-1-1011400000")
    }

    @Test(arguments: [
        ("{{ ok }}\n\n{{ x", 3), ("a\nb {% if %}", 2), ("{# c\n\n #}{% nope %}", 3),
        ("1\n2\n{{ none + 1 }}", 3), ("{% for x in [1] %}\n\n  {{ x.y.z }}{% endfor %}", 3),
        ("{%- set a = 1 %}\n{{ raise_exception('no') }}", 2), ("{{ s|nope }}", 1),
        ("{% macro m() %}\n{{ 1 / 0 }}\n{% endmacro %}\n\n{{ m() }}", 2),
    ])
    func errorsNameTheLine(source: String, line: Int) {
        let error = #expect(throws: TemplateError.self) { try Template(source).render([]) }
        #expect(error?.line == line)
    }

    @Test func kindsTellWhatWentWrong() {
        #expect(kind("{% if %}") == .syntax)
        #expect(kind("{% include 'other' %}") == .unsupported)
        #expect(kind("{% extends 'other' %}") == .unsupported)
        #expect(kind("{% import 'other' as o %}") == .unsupported)
        #expect(kind("{{ 'x'|pprint }}") == .unsupported)
        #expect(kind("{{ missing.x }}") == .undefined)
        #expect(kind("{{ raise_exception('no') }}") == .raised)
        #expect(kind("{{ 1 + 'a' }}") == .runtime)
        #expect(kind("{{ ''.__class__.__mro__ }}") == .undefined)
    }

    /// No template, however damaged, may crash the process.
    @Test func survivesDamagedTemplates() throws {
        let source = Array(try Fixture.text("templates/qwen3.jinja").utf8)
        let conversation = try #require(try Fixture.json("conversations.json")["two calls at once"]?.objectValue)
        let variables = conversation.pairs.map { (name: $0.key, value: $0.value) }
        var generator = SeededGenerator(seed: 7)
        let limits = RenderLimits(fuel: 100_000, outputBytes: 1 << 16)
        let alphabet = Array("{}%#-+|.'\"()[]~ \n\\xé0".utf8)
        var rendered = 0
        for _ in 0..<300 {
            var damaged = source
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                let position = Int.random(in: 0..<damaged.count, using: &generator)
                switch Int.random(in: 0..<3, using: &generator) {
                case 0: damaged.remove(at: position)
                case 1: damaged[position] = alphabet.randomElement(using: &generator)!
                default: damaged.insert(alphabet.randomElement(using: &generator)!, at: position)
                }
            }
            let text = String(decoding: damaged, as: UTF8.self)
            if (try? Template(text).render(variables, limits: limits)) != nil { rendered += 1 }
        }
        #expect(rendered > 0)
    }
}
