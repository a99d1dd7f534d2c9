/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/preload/fork.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/err.h"
#include "lib/base/os.h"
#include "lib/heap.h"
#include "lib/signals.h"
#include "lib/snapshot.h"

static struct secpool *pool;
static enum runopts_fork mode;
static _Atomic bool is_child;

static pthread_mutex_t lock =
	PTHREAD_MUTEX_INITIALIZER; /* Protects: snapshot, held, begun, blocked; held from before a fork until after it */
static struct snapshot snapshot;
static bool held, begun;
static sigset_t
	blocked; /* what the forking thread had: no handler of the program's runs in it while the pool is stopped, for that might wait for a page */

static _Thread_local bool failed; /* the fork that this thread makes: the child has no copy */

/* Whether a fork of this process makes a copy. */
static bool copies(void)
{
	return pool && !atomic_load(&is_child) && mode == RUNOPTS_FORK_SNAPSHOT;
}

/* Before jemalloc takes its locks: neither the service nor who waits for it is in one of them, and no handler of the program's runs in this thread when it has them. */
static void hold(void)
{
	sigset_t before;

	if (!copies())
		return;
	signals_block(&before);
	pthread_mutex_lock(&lock);
	blocked = before;
	heap_hold(pool);
	held = snapshot_hold(pool, &snapshot) == SECPOOL_OK;
}

static void stop(void)
{
	if (copies())
		begun = held && snapshot_stop(&snapshot) == SECPOOL_OK;
}

static void in_parent(void)
{
	sigset_t before;

	if (!copies())
		return;
	failed = !begun || snapshot_send(&snapshot) != SECPOOL_OK;
	heap_let_go(pool);
	before = blocked;
	pthread_mutex_unlock(&lock);
	signals_restore(&before);
}

static void in_child(void)
{
	bool has_copy = copies(), inherits = begun && fork_is_child();

	atomic_store(&is_child, true);
	if (!has_copy && !inherits)
		return;
	if (!begun || (inherits ? snapshot_inherit(&snapshot) : snapshot_receive(&snapshot)))
		_exit(FORK_FAILED_STATUS); /* lint: _exit: a child with less than its parent had must not run */
	if (!inherits)
		signals_restore(&blocked);
}

static enum secpool_error add(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	if (pthread_atfork(prepare, parent, child) != 0)
		return err_set(SECPOOL_E_NO_MEMORY, "no memory for what a child does first");
	return SECPOOL_OK;
}

enum secpool_error fork_prepare_first(void)
{
	return add(stop, NULL, NULL);
}

enum secpool_error fork_prepare(struct secpool *of, enum runopts_fork how)
{
	pool = of;
	mode = how;
	return add(hold, in_parent, in_child);
}

bool fork_is_child(void)
{
	return atomic_load_explicit(&is_child, memory_order_relaxed);
}

static pid_t real_fork(void)
{
	static _Atomic(void *) found; /* found twice it is the same */
	void *function = atomic_load(&found);

	if (!function) {
		function = dlsym(RTLD_NEXT, "fork");
		atomic_store(&found, function);
	}
	return ((pid_t(*)(void))function)();
}

static void end_child(pid_t pid)
{
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && os_interrupted())
		;
}

__attribute__((visibility("default"))) pid_t fork(void)
{
	pid_t pid;

	failed = false;
	pid = real_fork();
	if (pid <= 0 || !failed)
		return pid;
	end_child(pid);
	errno = ENOMEM; /* lint: errno is what fork must set */
	return -1;
}
