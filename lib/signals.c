/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/signals.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/guarded_copy.h"
#include "lib/base/os.h"
#include "lib/device.h"
#include "lib/fault.h"

#define PUBLIC __attribute__((visibility("default")))

/* How often a thread that is to end is interrupted. */
#define END_RETRY_NS 1000000ull

/* Sanitizer runtimes call our versions of functions before they are ready for instrumented code. */
#define EARLY __attribute__((no_sanitize("thread")))

typedef int sigaction_fn(int, const struct sigaction *, struct sigaction *);
typedef int sigmask_fn(int, const sigset_t *, sigset_t *);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* Protects: program_action, installed */
static struct sigaction program_action; /* what the program wants for SIGBUS; read by the handler */
static _Atomic bool installed;
static _Atomic uint64_t window_start, window_end;
_Atomic bool signals_is_child;

/* of the library's own threads: where a wake-up goes; -1: nowhere, the interruption is enough */
enum { NOT_OURS = -2 };
static _Thread_local int wake_fd_of_thread = NOT_OURS;

/* Not pthread_once, which can't be called early; finding it twice is harmless. */
EARLY static void *find_real(_Atomic(void *) *found, const char *name)
{
	void *function = atomic_load(found);

	if (!function) {
		function = dlsym(RTLD_NEXT, name);
		atomic_store(found, function);
	}
	return function;
}

EARLY static int real_sigaction(int number, const struct sigaction *act, struct sigaction *old)
{
	static _Atomic(void *) found;

	return ((sigaction_fn *)find_real(&found, "sigaction"))(number, act, old);
}

EARLY static int real_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	static _Atomic(void *) found;

	return ((sigmask_fn *)find_real(&found, "pthread_sigmask"))(how, set, old);
}

/* The access is made again, or the signal sent again, and ends the process as if we were not there. */
static void do_default(const siginfo_t *info)
{
	struct sigaction fatal = {.sa_handler = SIG_DFL};

	real_sigaction(SIGBUS, &fatal, NULL);
	if (info->si_code <= 0)
		syscall(SYS_tgkill, getpid(), (pid_t)syscall(SYS_gettid), SIGBUS);
}

/* Of a handler that is for one time only: whether this is that time. */
static bool take_once(sighandler_t handler)
{
	return __atomic_compare_exchange_n(&program_action.sa_handler, &handler, SIG_DFL, false,
		__ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* The program's own action, as if ours were not there: with the signals blocked that it asked for. */
static void pass_on(int number, siginfo_t *info, ucontext_t *context)
{
	struct sigaction action = program_action;
	sigset_t mask;

	if (action.sa_handler == SIG_DFL || (action.sa_handler == SIG_IGN && info->si_code > 0)) {
		do_default(info); /* a fault can't be ignored: signal(7) */
		return;
	}
	if (action.sa_handler == SIG_IGN)
		return;
	mask = context->uc_sigmask;
	for (int other = 1; other < NSIG; other++)
		if (other != SIGBUS && sigismember(&action.sa_mask, other) == 1)
			sigaddset(&mask, other);
	/* for this time only: a crash handler that meets the next one ends the process, and does not wait for itself */
	if (action.sa_flags & (int)SA_RESETHAND && !take_once(action.sa_handler)) {
		do_default(info); /* another thread has it */
		return;
	}
	real_sigmask(SIG_SETMASK, &mask, NULL);
	if (action.sa_flags & SA_SIGINFO)
		action.sa_sigaction(number, info, context);
	else
		action.sa_handler(number);
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
	int saved = errno; /* lint: errno is left as it was by a handler */
	uint64_t one = 1;

	/* somebody else met poison on a device: what is there is found bad when it is wanted */
	if (info->si_code == BUS_MCEERR_AO && device_covers(info->si_addr))
		return;
	/* a signal that was sent, also in the middle of a guarded copy, says nothing of a device */
	if (info->si_code > 0 &&
		((!atomic_load(&signals_is_child) && fault_signal(info, context)) ||
			guarded_copy_fixup(info, context))) {
		errno = saved; /* lint: errno as above */
		return;
	}
	if (info->si_code == SI_TKILL && wake_fd_of_thread != NOT_OURS) {
		if (wake_fd_of_thread >= 0)
			(void)!write(wake_fd_of_thread, &one, sizeof one); /* full: it is awake */
		errno = saved; /* lint: errno as above */
		return;
	}
	pass_on(number, info, context);
}

/*
 * In a child the regions are not there (MADV_DONTFORK): touching them there is SIGBUS, as everything lost is. Where the window can't be covered (the program has something
 * else there, a limit), it is SIGSEGV. Only calls that are async-signal-safe.
 */
static void after_fork(void)
{
	uint64_t start = atomic_load(&window_start);
	int fd = (int)syscall(SYS_memfd_create, "secpool-gone", MFD_CLOEXEC);

	atomic_store(&signals_is_child, true);
	lock = (pthread_mutex_t)
		PTHREAD_MUTEX_INITIALIZER; /* a thread that is not here may have had it */
	if (fd < 0)
		return;
	(void)!mmap((void *)(uintptr_t)start, atomic_load(&window_end) - start,
		PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, fd, 0);
	syscall(SYS_close, fd);
}

enum secpool_error signals_install(void)
{
	struct sigaction ours = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	enum secpool_error error = SECPOOL_OK;

	ours.sa_sigaction = on_sigbus;
	/* no other handler runs while a fault is served: it might touch the same page. SIGBUS stays: a device may go meanwhile */
	sigfillset(&ours.sa_mask);
	sigdelset(&ours.sa_mask, SIGBUS);
	pthread_mutex_lock(&lock);
	if (!installed && real_sigaction(SIGBUS, &ours, &program_action) != 0)
		error = os_error("sigaction SIGBUS");
	else if (!installed && pthread_atfork(NULL, NULL, after_fork) != 0)
		error = err_set(SECPOOL_E_NO_MEMORY, "no memory for what a child does first");
	else
		installed = true;
	pthread_mutex_unlock(&lock);
	return error;
}

void signals_set_window(uint64_t base, uint64_t bytes)
{
	atomic_store(&window_start, base);
	atomic_store(&window_end, base + bytes);
}

enum secpool_error signals_start_thread(pthread_t *ret_thread, void *(*run)(void *), void *arg)
{
	sigset_t all, before;
	int failed;

	sigfillset(&all); /* SIGBUS too, until the thread has said what a wake-up means to it */
	real_sigmask(SIG_SETMASK, &all, &before);
	failed = pthread_create(ret_thread, NULL, run, arg);
	real_sigmask(SIG_SETMASK, &before, NULL);
	if (failed)
		return err_set(
			SECPOOL_E_NO_MEMORY, "a thread could not be started: %s", strerror(failed));
	return SECPOOL_OK;
}

static void enter(int wake_fd)
{
	sigset_t bus;

	wake_fd_of_thread = wake_fd;
	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	real_sigmask(SIG_UNBLOCK, &bus, NULL);
}

void signals_enter_service(int wake_fd)
{
	enter(wake_fd);
}

void signals_enter_handler(void)
{
	enter(-1);
}

void signals_block(sigset_t *ret_before)
{
	sigset_t all;

	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	real_sigmask(SIG_BLOCK, &all, ret_before);
}

void signals_restore(const sigset_t *before)
{
	real_sigmask(SIG_SETMASK, before, NULL);
}

void signals_wake_service(pthread_t thread)
{
	pthread_kill(thread, SIGBUS);
}

void signals_end_thread(pthread_t thread)
{
	while (pthread_tryjoin_np(thread, NULL) != 0) {
		pthread_kill(thread, SIGBUS);
		clock_sleep_ns(END_RETRY_NS);
	}
}

/* ---- interposed for the program ---- */

/* What a function of libc does when it fails. */
EARLY static int fail_with(int number)
{
	errno = number; /* lint: errno is what our versions of libc's functions must set */
	return -1;
}

static int program_sigaction(const struct sigaction *act, struct sigaction *old)
{
	struct sigaction before;
	sigset_t mask;

	signals_block(&mask); /* a handler may do the same */
	pthread_mutex_lock(&lock);
	before = program_action;
	if (act)
		program_action = *act;
	pthread_mutex_unlock(&lock);
	signals_restore(&mask);
	if (old)
		*old = before;
	return 0;
}

PUBLIC EARLY int sigaction(int number, const struct sigaction *act, struct sigaction *old)
{
	if (number != SIGBUS || !atomic_load(&installed))
		return real_sigaction(number, act, old);
	return program_sigaction(act, old);
}

PUBLIC EARLY sighandler_t signal(int number, sighandler_t handler)
{
	struct sigaction act = {.sa_handler = handler, .sa_flags = SA_RESTART}, old;

	sigemptyset(&act.sa_mask);
	if (sigaction(number, &act, &old) != 0)
		return SIG_ERR;
	return old.sa_handler;
}

bool signals_in_window(const void *start, uint64_t bytes)
{
	uint64_t first = (uintptr_t)start, end;

	return !__builtin_add_overflow(first, bytes, &end) && first >= atomic_load(&window_start) &&
	       end <= atomic_load(&window_end);
}

/* A blocked SIGBUS would turn a lost device into the end of the process. */
EARLY static int change_mask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t without;

	if (set && how != SIG_UNBLOCK && installed) {
		without = *set;
		sigdelset(&without, SIGBUS);
		set = &without;
	}
	return real_sigmask(how, set, old);
}

PUBLIC EARLY int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	return change_mask(how, set, old);
}

PUBLIC EARLY int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	int failed = change_mask(how, set, old);

	return failed ? fail_with(failed) : 0;
}

EARLY bool signals_touch_window(const void *start, uint64_t bytes)
{
	uint64_t first = (uintptr_t)start;

	return bytes > 0 && first < atomic_load(&window_end) &&
	       first + bytes > atomic_load(&window_start);
}

PUBLIC EARLY int munmap(void *start, size_t bytes)
{
	if (signals_touch_window(start, bytes))
		return fail_with(EINVAL);
	return (int)syscall(SYS_munmap, start, bytes);
}

PUBLIC EARLY int madvise(void *start, size_t bytes, int advice)
{
	if (signals_touch_window(start, bytes))
		return fail_with(EINVAL);
	return (int)syscall(SYS_madvise, start, bytes, advice);
}

PUBLIC EARLY int mprotect(void *start, size_t bytes, int protection)
{
	if (signals_touch_window(start, bytes))
		return fail_with(EINVAL);
	return (int)syscall(SYS_mprotect, start, bytes, protection);
}

PUBLIC EARLY void *mremap(void *start, size_t bytes, size_t new_bytes, int flags, ...)
{
	void *to = NULL;
	va_list args;

	va_start(args, flags);
	if (flags & MREMAP_FIXED)
		to = va_arg(args, void *);
	va_end(args);
	if (signals_touch_window(start, bytes) ||
		((flags & MREMAP_FIXED) && signals_touch_window(to, new_bytes))) {
		fail_with(EINVAL);
		return MAP_FAILED;
	}
	return (void *)syscall(SYS_mremap, start, bytes, new_bytes, flags, to);
}
