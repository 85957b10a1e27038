import Glibc

/// Reads a whole file, at most `limit` bytes; nil when there is no such file.
package func readFile(_ path: String, limit: Int) throws(TokenizerError) -> [UInt8]? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else {
        if errno == ENOENT || errno == ENOTDIR { return nil }
        throw TokenizerError(.unreadable, "\(path): \(String(cString: strerror(errno)))")
    }
    defer { close(descriptor) }
    var information = stat()
    guard fstat(descriptor, &information) == 0, information.st_mode & S_IFMT == S_IFREG else {
        throw TokenizerError(.unreadable, "\(path) is not a file")
    }
    guard information.st_size <= limit else {
        throw TokenizerError(.unreadable, "\(path) has \(information.st_size) bytes, more than the limit of \(limit)")
    }
    let size = Int(information.st_size)
    var failure: CInt = 0
    let bytes = [UInt8](unsafeUninitializedCapacity: max(1, size)) { buffer, count in
        while count < size {
            let result = read(descriptor, buffer.baseAddress! + count, size - count)
            if result < 0, errno == EINTR { continue }
            if result < 0 { failure = errno }
            if result <= 0 { break }
            count += result
        }
    }
    guard failure == 0 else {
        throw TokenizerError(.unreadable, "\(path): \(String(cString: strerror(failure)))")
    }
    return bytes
}
