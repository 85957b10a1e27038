// Cleaning up after a supervisor that was killed: a forked process that uses nothing but system calls, since it is
// forked from a process that may have threads.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "CProcessShims.h"
#include "internal.h"

struct directory_entry {
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

enum { ENTRY_BUFFER = 8192, ENVIRONMENT_BUFFER = 32768 };

// Does the file (a NUL-separated list) contain `marker` as a whole entry? Read in pieces: environments can be large.
static bool contains_marker(int fd, const char* marker) {
    char buffer[ENVIRONMENT_BUFFER];
    size_t length = strlen(marker);
    size_t matched = 0;
    bool at_start = true;  // of an entry that has matched so far
    for (;;) {
        ssize_t count = read(fd, buffer, sizeof buffer);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return false;
        for (ssize_t i = 0; i < count; i++) {
            if (buffer[i] == 0) {
                if (at_start && matched == length) return true;
                at_start = true;
                matched = 0;
            } else if (at_start) {
                if (matched < length && buffer[i] == marker[matched]) {
                    matched++;
                } else {
                    at_start = false;
                }
            }
        }
    }
}

static pid_t parse_pid(const char* name) {
    pid_t pid = 0;
    for (; *name; name++) {
        if (*name < '0' || *name > '9' || pid > 99999999) return 0;
        pid = pid * 10 + (*name - '0');
    }
    return pid;
}

bool cps_proc_is_ours(void) {
    char text[16];
    ssize_t count = readlink("/proc/self", text, sizeof text - 1);
    if (count <= 0) return false;
    text[count] = 0;
    return parse_pid(text) == getpid();
}

int cps_kill_marked(const char* marker, pid_t except) {
    if (!cps_proc_is_ours()) return 0;
    int root = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) return 0;
    int killed = 0;
    pid_t self = getpid();
    _Alignas(struct directory_entry) char buffer[ENTRY_BUFFER];
    for (;;) {
        long count = syscall(SYS_getdents64, root, buffer, sizeof buffer);
        if (count <= 0) break;
        for (long at = 0; at < count;) {
            struct directory_entry* entry = (struct directory_entry*)(buffer + at);
            at += entry->length;
            pid_t pid = parse_pid(entry->name);
            if (pid <= 0 || pid == self || pid == except) continue;
            char path[32];
            size_t length = strlen(entry->name);
            memcpy(path, entry->name, length);
            memcpy(path + length, "/environ", sizeof "/environ");
            int fd = openat(root, path, O_RDONLY | O_CLOEXEC);
            if (fd < 0) continue;
            if (contains_marker(fd, marker) && kill(pid, SIGKILL) == 0) killed++;
            close(fd);
        }
    }
    close(root);
    return killed;
}

static int remove_entries(int parent, const char* path, int depth) {
    int root = openat(parent, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (root < 0) return errno;
    _Alignas(struct directory_entry) char buffer[ENTRY_BUFFER];
    for (;;) {
        long count = syscall(SYS_getdents64, root, buffer, sizeof buffer);
        if (count <= 0) break;
        for (long at = 0; at < count;) {
            struct directory_entry* entry = (struct directory_entry*)(buffer + at);
            at += entry->length;
            if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0) continue;
            if (unlinkat(root, entry->name, 0) != 0 && (errno == EISDIR || errno == EPERM) && depth > 0)
                remove_entries(root, entry->name, depth - 1);
        }
    }
    close(root);
    return unlinkat(parent, path, AT_REMOVEDIR) == 0 ? 0 : errno;
}

int cps_remove_directory(const char* path) { return remove_entries(AT_FDCWD, path, 3); }

_Noreturn static void run_reaper(int death_fd, const char* marker, const char* directory, struct cps_title_area title) {
    // A group of its own keeps it out of the terminal's Ctrl-C; the mask keeps it alive through everything but SIGKILL.
    setpgid(0, 0);
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    prctl(PR_SET_NAME, "vllm-reaper", 0, 0, 0);
    cps_write_title(title, "vllm-engine: reaper");
    if (death_fd != 0) dup2(death_fd, 0);
    cps_close_from(1);

    char byte;
    ssize_t count;
    do {
        count = read(0, &byte, 1);
    } while (count > 0 || (count < 0 && errno == EINTR));

    // A process may fork between being seen and being killed, hence several passes until one finds nothing.
    struct timespec pause = {0, 20 * 1000 * 1000};
    for (int quiet = 0, pass = 0; quiet < 2 && pass < 200; pass++) {
        quiet = cps_kill_marked(marker, 0) == 0 ? quiet + 1 : 0;
        nanosleep(&pause, NULL);
    }
    cps_remove_directory(directory);
    _exit(0);
}

int cps_fork_reaper(int death_fd, const char* marker, const char* directory, struct cps_spawned* result) {
    struct cps_title_area title = cps_find_title_area();
    pid_t pid = fork();
    if (pid < 0) return errno;
    if (pid == 0) run_reaper(death_fd, marker, directory, title);
    int pidfd = cps_pidfd_open(pid);
    if (pidfd < 0) {
        int error = errno;
        kill(pid, SIGKILL);
        return error;
    }
    result->pid = pid;
    result->pidfd = pidfd;
    return 0;
}
