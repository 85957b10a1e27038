func hex(_ text: String) -> [UInt8] {
    var bytes: [UInt8] = []
    var digits = Array(text.utf8)[...]
    while let high = digits.popFirst(), let low = digits.popFirst() {
        bytes.append(UInt8(String(decoding: [high, low], as: UTF8.self), radix: 16)!)
    }
    return bytes
}
