/// Visits every node of a template in source order, for questions about what a template does.
package struct SyntaxTreeWalk {
    package var onStatement: (Statement) -> Void = { _ in }
    package var onExpression: (Expression) -> Void = { _ in }

    package init() {}

    package func visit(_ body: [Statement]) { for statement in body { visit(statement) } }

    private func visit(_ statement: Statement) {
        onStatement(statement)
        switch statement {
        case .text, .breakLoop, .continueLoop: break
        case .output(let expression, _), .assign(_, let expression, _): visit(expression)
        case .assignBlock(_, let filter, let body, _):
            if let filter { visit(filter) }
            visit(body)
        case .condition(let branches, let otherwise, _):
            for branch in branches {
                visit(branch.test)
                visit(branch.body)
            }
            visit(otherwise)
        case .loop(let loop):
            visit(loop.iterable)
            if let test = loop.test { visit(test) }
            visit(loop.body)
            visit(loop.otherwise)
        case .macro(let macro): visit(macro)
        case .call(let block):
            visit(.call(block.callee, block.arguments))
            visit(block.macro)
        case .filter(let expression, let body, _):
            visit(expression)
            visit(body)
        case .with(let bindings, let body, _):
            for binding in bindings { visit(binding.value) }
            visit(body)
        case .block(_, _, let body), .group(let body): visit(body)
        }
    }

    private func visit(_ macro: MacroDefinition) {
        for parameter in macro.parameters { if let value = parameter.defaultValue { visit(value) } }
        visit(macro.body)
    }

    private func visit(_ expression: Expression) {
        onExpression(expression)
        switch expression {
        case .none, .bool, .integer, .bigInteger, .float, .string, .name, .capturedBlock: break
        case .list(let elements), .tuple(let elements), .concatenation(let elements), .and(let elements),
            .or(let elements):
            for element in elements { visit(element) }
        case .dict(let members):
            for member in members {
                visit(member.key)
                visit(member.value)
            }
        case .attribute(let base, _), .negate(let base), .plus(let base), .not(let base): visit(base)
        case .item(let base, let key):
            visit(base)
            visit(key)
        case .slice(let base, let start, let stop, let step):
            visit(base)
            for bound in [start, stop, step] { if let bound { visit(bound) } }
        case .call(let base, let arguments), .filter(let base, _, let arguments), .test(let base, _, let arguments):
            visit(base)
            for argument in arguments.positional { visit(argument) }
            for argument in arguments.keywords { visit(argument.value) }
            if let spread = arguments.spread { visit(spread) }
            if let spread = arguments.keywordSpread { visit(spread) }
        case .arithmetic(let first, let rest):
            visit(first)
            for (_, operand) in rest { visit(operand) }
        case .comparison(let first, let rest):
            visit(first)
            for (_, operand) in rest { visit(operand) }
        case .conditional(let test, let then, let otherwise):
            visit(test)
            visit(then)
            if let otherwise { visit(otherwise) }
        }
    }
}
