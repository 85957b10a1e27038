// Starting a child: fork on a thread that never ends, descriptor table, exec, errno back over a pipe.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "CProcessShims.h"
#include "internal.h"

struct failure {
    int error;
    int stage;
};

// After fork only async-signal-safe calls are allowed: other threads may have held any lock.

static void fail_child(int report_fd, enum cps_stage stage, int error) {
    struct failure failure = {.error = error, .stage = stage};
    ssize_t ignored = write(report_fd, &failure, sizeof failure);
    (void)ignored;
    _exit(127);
}

void cps_close_from(int first) {
    if (syscall(SYS_close_range, (unsigned)first, ~0U, 0U) == 0) return;
    struct rlimit limit;
    int end = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 65536 ? (int)limit.rlim_cur : 65536;
    for (int fd = first; fd < end; fd++) close(fd);
}

// Sources and targets may overlap in any way (3 -> 4 and 4 -> 3), so every source is first copied above all targets:
//
//   wanted   3 -> 4, 4 -> 3     copies  3 -> 10, 4 -> 11     report pipe -> 5     10 -> 4, 11 -> 3     close 6 and up
static int build_descriptor_table(const struct cps_spawn_options* options, int* report_fd, int* scratch) {
    int above = 3;  // the first number after all targets: there goes the report pipe
    for (size_t i = 0; i < options->descriptor_count; i++)
        if (options->descriptors[i].target >= above) above = options->descriptors[i].target + 1;
    for (size_t i = 0; i < options->descriptor_count; i++) {
        scratch[i] = fcntl(options->descriptors[i].source, F_DUPFD_CLOEXEC, above + 1);
        if (scratch[i] < 0) return errno;
    }
    if (*report_fd != above) {
        if (dup3(*report_fd, above, O_CLOEXEC) < 0) return errno;
        *report_fd = above;
    }
    for (int fd = 0; fd < above; fd++) close(fd);
    for (size_t i = 0; i < options->descriptor_count; i++)
        if (dup2(scratch[i], options->descriptors[i].target) < 0) return errno;
    cps_close_from(above + 1);
    return 0;
}

_Noreturn static void run_child(const struct cps_spawn_options* options, pid_t parent, int report_fd, int* scratch) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    // The parent may have died before the line above took effect.
    if (getppid() != parent) fail_child(report_fd, CPS_STAGE_PARENT_GONE, ESRCH);

    struct sigaction standard;
    memset(&standard, 0, sizeof standard);
    standard.sa_handler = SIG_DFL;
    for (int signal = 1; signal < NSIG; signal++) sigaction(signal, &standard, NULL);

    int error = build_descriptor_table(options, &report_fd, scratch);
    if (error) fail_child(report_fd, CPS_STAGE_DESCRIPTORS, error);
    if (options->directory && chdir(options->directory) != 0) fail_child(report_fd, CPS_STAGE_DIRECTORY, errno);

    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(options->path, options->argv, options->envp);
    fail_child(report_fd, CPS_STAGE_EXEC, errno);
    _exit(127);
}

static int spawn_here(const struct cps_spawn_options* options, struct cps_spawned* result, enum cps_stage* stage) {
    int report[2];
    *stage = CPS_STAGE_FORK;
    if (pipe2(report, O_CLOEXEC) != 0) return errno;
    int* scratch = calloc(options->descriptor_count + 1, sizeof *scratch);
    if (!scratch) {
        close(report[0]);
        close(report[1]);
        return ENOMEM;
    }

    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) run_child(options, parent, report[1], scratch);
    int fork_error = errno;
    free(scratch);
    close(report[1]);
    if (pid < 0) {
        close(report[0]);
        return fork_error;
    }

    // End of file means that exec succeeded and closed the child's end.
    struct failure failure = {0, CPS_STAGE_NONE};
    ssize_t count;
    do {
        count = read(report[0], &failure, sizeof failure);
    } while (count < 0 && errno == EINTR);
    close(report[0]);
    if (count == (ssize_t)sizeof failure) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
        *stage = (enum cps_stage)failure.stage;
        return failure.error;
    }

    int pidfd = cps_pidfd_open(pid);
    if (pidfd < 0) {
        int error = errno;
        kill(-pid, SIGKILL);
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
        return error;
    }
    *stage = CPS_STAGE_NONE;
    result->pid = pid;
    result->pidfd = pidfd;
    return 0;
}

// The spawning thread: callers queue on `turn`, put their job into `job` and wait for it to be done.

struct job {
    const struct cps_spawn_options* options;
    struct cps_spawned* result;
    enum cps_stage* stage;
    int error;
    bool done;
};

static pthread_once_t thread_started = PTHREAD_ONCE_INIT;
static int thread_error;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct job* job;

static void* spawning_thread(void* unused) {
    (void)unused;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!job || job->done) pthread_cond_wait(&changed, &lock);
        job->error = spawn_here(job->options, job->result, job->stage);
        job->done = true;
        pthread_cond_broadcast(&changed);
    }
    return NULL;
}

static void start_thread(void) {
    // A child inherits the mask of the thread that forks: with everything blocked no handler of ours can run in it.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_t thread;
    thread_error = pthread_create(&thread, &attributes, spawning_thread, NULL);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

int cps_spawn(const struct cps_spawn_options* options, struct cps_spawned* result, enum cps_stage* stage) {
    *stage = CPS_STAGE_FORK;
    pthread_once(&thread_started, start_thread);
    if (thread_error) return thread_error;
    struct job mine = {.options = options, .result = result, .stage = stage};
    pthread_mutex_lock(&turn);
    pthread_mutex_lock(&lock);
    job = &mine;
    pthread_cond_broadcast(&changed);
    while (!mine.done) pthread_cond_wait(&changed, &lock);
    job = NULL;
    pthread_mutex_unlock(&lock);
    pthread_mutex_unlock(&turn);
    return mine.error;
}
