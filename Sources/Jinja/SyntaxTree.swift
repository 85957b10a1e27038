// The compiled form of a template. Immutable and shared between renders.

/// A variable name with its number in the template, which scopes compare instead of the text.
package struct Name: Sendable, Equatable {
    package let id: Int
    package let text: String
}

package enum ArithmeticOperator: String, Sendable {
    case add = "+"
    case subtract = "-"
    case multiply = "*"
    case divide = "/"
    case floorDivide = "//"
    case modulo = "%"
    case power = "**"
}

package enum ComparisonOperator: String, Sendable {
    case equal = "=="
    case notEqual = "!="
    case less = "<"
    case lessOrEqual = "<="
    case greater = ">"
    case greaterOrEqual = ">="
    case isIn = "in"
    case isNotIn = "not in"
}

package struct Arguments: Sendable {
    package var positional: [Expression] = []
    package var keywords: [(name: String, value: Expression)] = []
    package var spread: Expression?
    package var keywordSpread: Expression?

    var isEmpty: Bool { positional.isEmpty && keywords.isEmpty && spread == nil && keywordSpread == nil }
}

package indirect enum Expression: Sendable {
    case none
    case bool(Bool)
    case integer(Int)
    /// An integer literal beyond 64 bits, kept as digits.
    case bigInteger(String)
    case float(Double)
    case string(String)
    case name(Name)
    case list([Expression])
    case tuple([Expression])
    case dict([(key: Expression, value: Expression)])
    case attribute(Expression, String)
    case item(Expression, Expression)
    case slice(Expression, start: Expression?, stop: Expression?, step: Expression?)
    case call(Expression, Arguments)
    case filter(Expression, FilterReference, Arguments)
    case test(Expression, TestReference, Arguments)
    case negate(Expression)
    case plus(Expression)
    case not(Expression)
    /// Operators of one precedence level, applied from left to right.
    case arithmetic(Expression, [(operation: ArithmeticOperator, operand: Expression)])
    case concatenation([Expression])
    case and([Expression])
    case or([Expression])
    /// `a < b <= c`: true when every neighbouring pair is.
    case comparison(Expression, [(operation: ComparisonOperator, operand: Expression)])
    case conditional(test: Expression, then: Expression, otherwise: Expression?)
    /// The text captured by the block that a filter chain is attached to.
    case capturedBlock
}

/// A filter known at compile time, or a name that fails when the expression is reached.
package enum FilterReference: Sendable {
    case known(Filter)
    case unknown(String)
}

package enum TestReference: Sendable {
    case known(Test)
    case unknown(String)
}

package indirect enum AssignmentTarget: Sendable {
    case name(Name)
    case tuple([AssignmentTarget])
    case namespaceAttribute(Name, String)
}

package indirect enum Statement: Sendable {
    case text(String)
    case output(Expression, line: Int)
    case assign(AssignmentTarget, Expression, line: Int)
    case assignBlock(AssignmentTarget, filter: Expression?, body: [Statement], line: Int)
    case condition(branches: [(test: Expression, body: [Statement])], otherwise: [Statement], line: Int)
    case loop(ForLoop)
    case macro(MacroDefinition)
    case call(CallBlock)
    case filter(Expression, body: [Statement], line: Int)
    case with(bindings: [(target: AssignmentTarget, value: Expression)], body: [Statement], line: Int)
    /// `block`, rendered in place; it sees the template's variables but not those of surrounding loops unless `scoped`.
    case block(name: String, scoped: Bool, body: [Statement])
    case group([Statement])
    case breakLoop
    case continueLoop
}

package final class ForLoop: Sendable {
    package let target: AssignmentTarget
    package let iterable: Expression
    package let test: Expression?
    package let isRecursive: Bool
    package let body: [Statement]
    package let otherwise: [Statement]
    let loopName: Name
    package let line: Int

    init(
        target: AssignmentTarget, iterable: Expression, test: Expression?, isRecursive: Bool, body: [Statement],
        otherwise: [Statement], loopName: Name, line: Int
    ) {
        self.target = target
        self.iterable = iterable
        self.test = test
        self.isRecursive = isRecursive
        self.body = body
        self.otherwise = otherwise
        self.loopName = loopName
        self.line = line
    }
}

package final class MacroDefinition: Sendable {
    /// Nil for the body of a call block.
    package let name: Name?
    package let parameters: [(name: Name, defaultValue: Expression?)]
    package let body: [Statement]
    /// Names of the values a macro receives without declaring them; nil when its body does not use them.
    let caller: Name?
    let keywords: Name?
    let positional: Name?
    let line: Int

    init(
        name: Name?, parameters: [(name: Name, defaultValue: Expression?)], body: [Statement], caller: Name?,
        keywords: Name?, positional: Name?, line: Int
    ) {
        self.name = name
        self.parameters = parameters
        self.body = body
        self.caller = caller
        self.keywords = keywords
        self.positional = positional
        self.line = line
    }
}

package final class CallBlock: Sendable {
    package let callee: Expression
    package let arguments: Arguments
    package let macro: MacroDefinition
    package let line: Int

    init(callee: Expression, arguments: Arguments, macro: MacroDefinition, line: Int) {
        self.callee = callee
        self.arguments = arguments
        self.macro = macro
        self.line = line
    }
}
