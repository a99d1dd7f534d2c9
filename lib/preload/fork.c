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
#include "lib/signals.h"
#include "lib/snapshot.h"

static struct secpool *pool;
static enum runopts_fork mode;
static _Atomic bool is_child;

static pthread_mutex_t lock =
	PTHREAD_MUTEX_INITIALIZER; /* Protects: snapshot, begun, blocked; held from before a fork until after it */
static struct snapshot snapshot;
static bool begun;
static sigset_t
	blocked; /* what the forking thread had: no handler of the program's runs in it while the pool is stopped, for that might wait for a page */

static _Thread_local bool failed; /* the fork that this thread makes: the child has no copy */

/* Whether a fork of this process makes a copy. */
static bool copies(void)
{
	return pool && !atomic_load(&is_child) && mode == RUNOPTS_FORK_SNAPSHOT;
}

static void before(void)
{
	if (!copies())
		return;
	pthread_mutex_lock(&lock);
	signals_block(&blocked);
	begun = snapshot_begin(pool, &snapshot) == SECPOOL_OK;
}

static void in_parent(void)
{
	if (!copies())
		return;
	failed = !begun || snapshot_send(&snapshot) != SECPOOL_OK;
	signals_restore(&blocked);
	pthread_mutex_unlock(&lock);
}

static void in_child(void)
{
	bool has_copy = copies();

	atomic_store(&is_child, true);
	if (!has_copy)
		return;
	if (!begun || snapshot_receive(&snapshot) != SECPOOL_OK)
		_exit(FORK_FAILED_STATUS); /* lint: _exit: a child with less than its parent had must not run */
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
	return add(before, NULL, NULL);
}

enum secpool_error fork_prepare(struct secpool *of, enum runopts_fork how)
{
	pool = of;
	mode = how;
	return add(NULL, in_parent, in_child);
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
