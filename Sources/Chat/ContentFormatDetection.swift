import Jinja

/// Finds out whether a template loops over the parts of a message's content (vLLM: content format `auto`).
///
/// Follows the variables that hold messages through assignments, loops and macro arguments, without regard to scopes.
/// A template in which such a variable is taken apart counts as wanting strings.
enum ContentFormatDetection {
    static func detect(_ template: Template) -> ChatTemplate.ContentFormat {
        let collector = Collector()
        collector.collect(template.body)
        let facts = collector.facts
        guard let lists = variables(holding: "messages", facts), let messages = loopVariables(over: lists, facts) else {
            return .string
        }
        for loop in facts.loops {
            if messages.contains(where: { isAccess(loop.node.iterable, to: $0, key: "content") }) {
                if case .name = loop.node.target { return .openai }
                return .string
            }
            if iteratesContentVariable(loop, messages, facts) { return .openai }
        }
        return .string
    }

    private struct Loop {
        let node: ForLoop
        /// The macros around the loop.
        let macros: [MacroDefinition]
    }

    private struct Facts {
        var assignments: [(target: AssignmentTarget, value: Expression)] = []
        var loops: [Loop] = []
        var calls: [(callee: Expression, arguments: Arguments)] = []
    }

    private final class Collector {
        var facts = Facts()

        func collect(_ body: [Statement]) {
            var walk = SyntaxTreeWalk()
            var macros: [MacroDefinition] = []
            walk.onStatement = { [self] statement in
                switch statement {
                case .assign(let target, let value, _): facts.assignments.append((target, value))
                case .loop(let loop): facts.loops.append(Loop(node: loop, macros: []))
                case .macro(let macro): macros.append(macro)
                default: break
                }
            }
            walk.onExpression = { [self] expression in
                if case .call(let callee, let arguments) = expression { facts.calls.append((callee, arguments)) }
            }
            walk.visit(body)
            for macro in macros {
                var inner = SyntaxTreeWalk()
                inner.onStatement = { [self] statement in
                    guard case .loop(let loop) = statement,
                        let index = facts.loops.firstIndex(where: { $0.node === loop })
                    else { return }
                    facts.loops[index] = Loop(node: loop, macros: facts.loops[index].macros + [macro])
                }
                inner.visit(macro.body)
            }
        }
    }

    /// Whether the expression is the variable (or its item `key`), possibly filtered, tested or sliced.
    private static func isAccess(_ expression: Expression, to variable: String, key: String? = nil) -> Bool {
        switch expression {
        case .filter(let base, _, _), .test(let base, _, _), .slice(let base, _, _, _):
            return isAccess(base, to: variable, key: key)
        case .name(let name): return key == nil && name.text == variable
        case .attribute(.name(let name), let attribute): return name.text == variable && attribute == key
        case .item(.name(let name), .string(let item)): return name.text == variable && item == key
        default: return false
        }
    }

    /// The variable and those it is assigned to; nil when such an assignment is not to a single name.
    private static func variables(holding root: String, _ facts: Facts) -> [String]? {
        var found = [root]
        var next = 0
        while next < found.count {
            for assignment in facts.assignments where isAccess(assignment.value, to: found[next]) {
                guard case .name(let target) = assignment.target else { return nil }
                if !found.contains(target.text) { found.append(target.text) }
            }
            next += 1
        }
        return found
    }

    private static func loopVariables(over lists: [String], _ facts: Facts) -> [String]? {
        var found: [String] = []
        for loop in facts.loops where lists.contains(where: { isAccess(loop.node.iterable, to: $0) }) {
            guard case .name(let target) = loop.node.target else { return nil }
            found.append(target.text)
        }
        return found
    }

    /// A loop over a variable called `content`, or over a macro's parameter that is given a message's content.
    private static func iteratesContentVariable(_ loop: Loop, _ messages: [String], _ facts: Facts) -> Bool {
        guard case .name(let iterated) = loop.node.iterable, case .name = loop.node.target else { return false }
        guard !loop.macros.isEmpty else { return iterated.text == "content" }
        return loop.macros.contains { macro in
            guard let position = macro.parameters.firstIndex(where: { $0.name.text == iterated.text }) else {
                return false
            }
            return facts.calls.contains { call in
                guard case .name(let callee) = call.callee, callee.text == macro.name?.text else { return false }
                var given = call.arguments.keywords.filter { $0.name == iterated.text }.map(\.value)
                if position < call.arguments.positional.count { given.append(call.arguments.positional[position]) }
                return given.contains { value in messages.contains { isAccess(value, to: $0, key: "content") } }
            }
        }
    }
}
