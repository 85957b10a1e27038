// Process descriptors, reaping and process titles.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "CProcessShims.h"
#include "internal.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

int cps_pidfd_open(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

int cps_pidfd_signal(int pidfd, int signal) {
    return syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) == 0 ? 0 : errno;
}

int cps_pidfd_reap(int pidfd, struct cps_exit* result) {
    siginfo_t info;
    memset(&info, 0, sizeof info);
    int status;
    do {
        status = waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG);
    } while (status != 0 && errno == EINTR);
    if (status != 0) return errno;
    if (info.si_pid == 0) {
        result->kind = CPS_RUNNING;
        result->code = 0;
    } else {
        result->kind = info.si_code == CLD_EXITED ? CPS_EXITED : CPS_SIGNALED;
        result->code = info.si_status;
    }
    return 0;
}

int cps_become_subreaper(void) { return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0 ? 0 : errno; }

static bool contains(const pid_t* known, size_t known_count, pid_t pid) {
    for (size_t i = 0; i < known_count; i++)
        if (known[i] == pid) return true;
    return false;
}

static int reap_first_stranger(const pid_t* known, size_t known_count, pid_t* reaped) {
    siginfo_t info;
    memset(&info, 0, sizeof info);
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0) return errno;
    if (info.si_pid != 0 && !contains(known, known_count, info.si_pid) && waitpid(info.si_pid, NULL, WNOHANG) > 0)
        *reaped = info.si_pid;
    return 0;
}

int cps_reap_stranger(const pid_t* known, size_t known_count, pid_t* reaped) {
    *reaped = 0;
    if (!cps_proc_is_ours()) return reap_first_stranger(known, known_count, reaped);
    // Strangers are found by group: every known child leads its own process group, so looking (without taking) at one
    // finished child at a time would stop at a known one. Walk the children list instead.
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
    FILE* file = fopen(path, "re");
    if (!file) return errno;
    int pid;
    while (fscanf(file, "%d", &pid) == 1) {
        if (contains(known, known_count, pid)) continue;
        if (waitpid(pid, NULL, WNOHANG) == pid) {
            *reaped = pid;
            break;
        }
    }
    fclose(file);
    return 0;
}

int cps_signalfd(const int* signals, size_t count) {
    sigset_t mask;
    sigemptyset(&mask);
    for (size_t i = 0; i < count; i++) sigaddset(&mask, signals[i]);
    int error = pthread_sigmask(SIG_BLOCK, &mask, NULL);
    if (error) {
        errno = error;
        return -1;
    }
    return signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
}

int cps_next_signal(int fd) {
    struct signalfd_siginfo info;
    return read(fd, &info, sizeof info) == (ssize_t)sizeof info ? (int)info.ssi_signo : 0;
}

void cps_describe_error(int error, char* text, size_t size) {
    const char* description = strerror_r(error, text, size);
    if (description != text) snprintf(text, size, "%s", description);
}

int cps_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC) == 0 ? 0 : errno; }

const char* cps_signal_abbreviation(int signal) { return sigabbrev_np(signal); }

struct cps_title_area cps_find_title_area(void) {
    struct cps_title_area none = {NULL, NULL};
    char text[2048];
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return none;
    ssize_t count = read(fd, text, sizeof text - 1);
    close(fd);
    if (count <= 0) return none;
    text[count] = 0;
    // Field 2 is a name in parentheses that may itself contain blanks; field 48 and 49 are arg_start and arg_end.
    char* at = strrchr(text, ')');
    int field = 2;
    while (at && field < 48) {
        at = strchr(at + 1, ' ');
        field++;
    }
    unsigned long start, end;
    if (!at || sscanf(at, " %lu %lu", &start, &end) != 2 || start == 0 || end <= start) return none;
    struct cps_title_area area = {(char*)start, (char*)end};
    return area;
}

void cps_write_title(struct cps_title_area area, const char* title) {
    if (!area.start) return;
    size_t space = (size_t)(area.end - area.start);
    size_t length = strlen(title);
    if (length > space - 1) length = space - 1;
    memcpy(area.start, title, length);
    memset(area.start + length, 0, space - length);
}

void cps_set_process_title(const char* title) { cps_write_title(cps_find_title_area(), title); }

void cps_set_process_name(const char* name) { prctl(PR_SET_NAME, name, 0, 0, 0); }
