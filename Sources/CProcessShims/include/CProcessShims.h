// What Swift cannot do itself: run code between fork and exec, and wait on process descriptors.
//
// All functions return 0 or an errno value unless stated otherwise; none of them sets errno as its result.
#ifndef C_PROCESS_SHIMS_H
#define C_PROCESS_SHIMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// One entry of the child's descriptor table: descriptor `source` of this process becomes `target` in the child.
struct cps_descriptor {
    int source;
    int target;
};

/// Which step of starting the child failed.
enum cps_stage {
    CPS_STAGE_NONE = 0,
    CPS_STAGE_FORK,
    CPS_STAGE_PARENT_GONE,
    CPS_STAGE_DESCRIPTORS,
    CPS_STAGE_DIRECTORY,
    CPS_STAGE_EXEC,
};

struct cps_spawn_options {
    /// File to execute; PATH is not searched.
    const char* path;
    /// Null-terminated argument vector, argv[0] included.
    char* const* argv;
    /// Null-terminated environment of the child, complete.
    char* const* envp;
    /// Working directory of the child, or null to keep ours.
    const char* directory;
    /// Everything that is not listed here is closed in the child, descriptors 0 to 2 included.
    const struct cps_descriptor* descriptors;
    size_t descriptor_count;
};

struct cps_spawned {
    pid_t pid;
    /// Becomes readable when the child ends; close-on-exec; owned by the caller.
    int pidfd;
};

/// Starts a program in its own process group, with default signal handlers, an empty signal mask, SIGKILL as its
/// parent-death signal and exactly the descriptors listed. An error before or in exec comes back as errno.
///
/// The fork happens on one thread that never ends, because Linux delivers the parent-death signal when the *thread*
/// that forked is gone, and callers may run on pool threads.
int cps_spawn(const struct cps_spawn_options* options, struct cps_spawned* result, enum cps_stage* stage);

/// Forks the process that cleans up after us if we are killed: it waits until `death_fd` (the read end of a pipe whose
/// write end only this process holds) reports end of file, then kills every process whose environment contains
/// `marker` and removes `directory` with the files in it. It closes all other descriptors and ignores signals.
int cps_fork_reaper(int death_fd, const char* marker, const char* directory, struct cps_spawned* result);

/// Whether /proc shows the processes of our pid namespace, under our numbers. In a new namespace (`unshare -p`, a container) without
/// a /proc of its own it does not, and what it says about a pid is about another process.
bool cps_proc_is_ours(void);

/// Sends SIGKILL to every process whose initial environment contains the entry `marker` ("NAME=value"), except this
/// one and `except` (0 = nobody). Returns how many were signalled.
int cps_kill_marked(const char* marker, pid_t except);

/// Removes a directory and the files in it; sub-directories are descended into up to a small depth.
int cps_remove_directory(const char* path);

/// Pid descriptor of a running process, or -1 with errno set.
int cps_pidfd_open(pid_t pid);

/// Sends a signal to the process behind a pid descriptor.
int cps_pidfd_signal(int pidfd, int signal);

enum cps_exit_kind { CPS_RUNNING = 0, CPS_EXITED, CPS_SIGNALED };

struct cps_exit {
    enum cps_exit_kind kind;
    /// Exit status or signal number.
    int code;
};

/// Reaps the child behind a pid descriptor without blocking.
int cps_pidfd_reap(int pidfd, struct cps_exit* result);

/// Makes this process adopt the orphans among its descendants, so that none escapes to init unseen.
int cps_become_subreaper(void);

/// Reaps one finished child that is not in `known`; writes its pid, or 0 when there is none. Without a /proc of ours, one that is
/// behind a known child stays until that has been reaped.
int cps_reap_stranger(const pid_t* known, size_t known_count, pid_t* reaped);

/// Blocks the signals in this thread (and in those it will create) and returns a non-blocking signalfd for them, or -1
/// with errno set.
int cps_signalfd(const int* signals, size_t count);

/// The next signal that arrived, or 0.
int cps_next_signal(int signalfd);

/// Writes the description of an errno value; thread-safe, unlike strerror.
void cps_describe_error(int error, char* text, size_t size);

/// A close-on-exec pipe.
int cps_pipe(int ends[2]);

/// Abbreviation such as "TERM", or null.
const char* cps_signal_abbreviation(int signal);

/// Replaces the command line that `ps` shows for this process; cut to the space of the original one.
void cps_set_process_title(const char* title);

/// Sets the name that `ps -o comm` and `top` show for this process (15 bytes).
void cps_set_process_name(const char* name);

/// To be called first of all: opens /dev/null in place of standard descriptors that are closed. Otherwise the first sockets would
/// get their numbers, and log lines would go to whoever is at the other end.
void cps_open_standard_descriptors(void);

/// Gives the process at the other end of a unix socket a descriptor of ours, with one byte. Never waits.
int cps_send_descriptor(int socket, int descriptor);

/// Waits for such a descriptor, which is close-on-exec; -1 with errno set, ECONNREFUSED if something else came or the other end
/// hung up.
int cps_receive_descriptor(int socket);

/// A descriptor from which the number (64 bits) of system calls can be read that a thread, and threads it starts from now on, have
/// made since this call; or -1 with errno set.
int cps_count_system_calls(pid_t thread);

#endif
