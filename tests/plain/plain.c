/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that knows nothing of secpool: what tests run by `secpool run`. Its first argument says what it does; it prints "ok" and ends with 0 when all was as it must be, else it
 * says what was not and ends with 1.
 */
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/plain/plain.h"

/* ---- the family ---- */

static void check_family(void)
{
	volatile size_t far_too_many = SIZE_MAX / 2; /* the compiler would refuse it */
	void *memory = NULL;
	char *text;

	expect(in_pool(text = malloc(100)));
	memset(text, 'x', 100);
	expect(malloc_usable_size(text) >= 100);
	text = grow(text, 5 * MIB);
	expect(in_pool(text) && text[0] == 'x' && text[99] == 'x');
	memory = realloc(text, 0);
	expect(memory == NULL);
	text = calloc(1000, 1000);
	expect(in_pool(text));
	for (size_t i = 0; i < 1000 * 1000; i++)
		expect(text[i] == 0);
	free(text);
	for (size_t alignment = sizeof(void *); alignment <= 2 * MIB; alignment *= 2) {
		expect(posix_memalign(&memory, alignment, 100) == 0 && in_pool(memory));
		expect((uintptr_t)memory % alignment == 0);
		free(memory);
		memory = memalign(alignment, 10);
		expect(in_pool(memory) && (uintptr_t)memory % alignment == 0);
		free(memory);
	}
	expect(posix_memalign(&memory, 24, 100) == EINVAL);
	expect(in_pool(memory = aligned_alloc(64, 640)));
	free(memory);
	expect(in_pool(memory = valloc(1)) && (uintptr_t)memory % PAGE == 0);
	free(memory);
	expect(in_pool(memory = reallocarray(NULL, 10, 10)));
	errno = 0;
	text = reallocarray(memory, far_too_many, 4);
	expect(text == NULL && errno == ENOMEM);
	free(memory);
	errno = 5;
	free(malloc(3 * MIB));
	expect(errno == 5);
	free(NULL);
	errno = 0;
	memory = calloc(far_too_many, 4);
	expect(memory == NULL && errno == ENOMEM);
	errno = 0;
	memory = malloc((size_t)1 << 45); /* more than the tenant may have */
	expect(memory == NULL && errno == ENOMEM);
}

/* What libc and the loader allocate stays theirs, and can be freed and grown by anybody. */
static void check_libc(void)
{
	char *line = NULL, *text = strdup("a text");
	size_t room = 0;
	FILE *file = tmpfile();
	void *library;

	expect(!in_pool(file) && !in_pool(text));
	text = grow(text, 3 * MIB);
	expect(in_pool(text) && strcmp(text, "a text") == 0);
	fputs("first line\n", file);
	rewind(file);
	line = malloc(1);
	room = 1;
	expect(getline(&line, &room, file) == 11 && strcmp(line, "first line\n") == 0);
	free(line);
	fclose(file);
	free(text);
	library = dlopen("libz.so.1", RTLD_NOW);
	if (library) {
		expect(dlsym(library, "zlibVersion") != NULL);
		dlclose(library);
	}
}

/* ---- threads ---- */

static pthread_key_t late_key;
static pthread_mutex_t *lock; /* in pool memory: futex(2) on it */
static pthread_cond_t *turned;
static unsigned turn;

/* Runs after the heap's own destructor for the thread has run, too. */
static void free_late(void *memory)
{
	static _Thread_local int rounds;

	if (++rounds < 3) {
		pthread_setspecific(late_key, memory);
		return;
	}
	free(memory);
	free(malloc(50));
}

static void *work(void *arg)
{
	uint64_t seed = (uintptr_t)arg * 1000003;
	uint64_t *mine = malloc(4 * MIB);

	expect(in_pool(mine));
	pthread_setspecific(late_key, malloc(40));
	fill(mine, 4 * MIB, seed);
	for (int i = 0; i < 20000; i++)
		free(malloc((size_t)(i * 37 % 6000)));
	expect(holds(mine, 4 * MIB, seed));
	for (unsigned i = 0; i < 50; i++) {
		pthread_mutex_lock(lock);
		while (turn % THREADS != (uintptr_t)arg)
			pthread_cond_wait(turned, lock);
		turn++;
		pthread_cond_broadcast(turned);
		pthread_mutex_unlock(lock);
	}
	return mine; /* freed by another thread */
}

static void check_threads(void)
{
	pthread_t threads[THREADS];
	void *result;

	expect(pthread_key_create(&late_key, free_late) == 0);
	lock = calloc(1, sizeof *lock);
	turned = calloc(1, sizeof *turned);
	expect(in_pool(lock) && in_pool(turned));
	pthread_mutex_init(lock, NULL);
	pthread_cond_init(turned, NULL);
	push_out();
	for (uintptr_t i = 0; i < THREADS; i++)
		expect(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
	for (uintptr_t i = 0; i < THREADS; i++) {
		expect(pthread_join(threads[i], &result) == 0);
		free(result);
	}
	expect(turn == THREADS * 50);
}

/* ---- system calls on memory that is not there at the moment ---- */

static void check_calls(void)
{
	enum { BYTES = 64 << 10 };
	struct iovec *parts = malloc(2 * sizeof *parts);
	struct msghdr *message = calloc(1, sizeof *message);
	uint64_t *from = malloc(BYTES), *to = malloc(BYTES);
	int file = memfd_create("calls", 0), ends[2];

	fill(from, BYTES, 7);
	push_out();
	expect(write(file, from, BYTES) == BYTES);
	push_out();
	expect(pread(file, to, BYTES, 0) == BYTES && holds(to, BYTES, 7));
	parts[0] = (struct iovec){from, BYTES / 2};
	parts[1] = (struct iovec){from + BYTES / 16, BYTES / 2};
	push_out();
	expect(pwritev(file, parts, 2, 0) == BYTES);
	memset(to, 0, BYTES);
	parts[0].iov_base = to;
	parts[1].iov_base = to + BYTES / 16;
	push_out();
	expect(preadv(file, parts, 2, 0) == BYTES && holds(to, BYTES, 7));
	expect(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	*message = (struct msghdr){.msg_iov = parts, .msg_iovlen = 2};
	parts[0] = (struct iovec){from, PAGE};
	parts[1] = (struct iovec){from + PAGE / 8, PAGE};
	push_out();
	expect(sendmsg(ends[0], message, 0) == 2 * PAGE);
	parts[0].iov_base = to;
	parts[1].iov_base = to + PAGE / 8;
	memset(to, 0, BYTES);
	push_out();
	expect(recvmsg(ends[1], message, MSG_WAITALL) == 2 * PAGE && holds(to, 2 * PAGE, 7));
}

/* ---- signals ---- */

static volatile uint64_t *touched;
static volatile sig_atomic_t handled;

static void touch(int number)
{
	for (size_t i = 0; i < LARGE / sizeof *touched; i += PAGE / sizeof *touched)
		expect(touched[i] == 11 + i);
	handled = number;
}

/* A handler touches what is out, on an alternate stack. */
static void check_signals(void)
{
	struct sigaction action = {.sa_handler = touch, .sa_flags = SA_ONSTACK};
	stack_t stack = {.ss_size = 256 << 10};

	stack.ss_sp = malloc(stack.ss_size);
	touched = malloc(LARGE);
	fill((uint64_t *)touched, LARGE, 11);
	push_out();
	expect(sigaltstack(&stack, NULL) == 0);
	sigaction(SIGUSR1, &action, NULL);
	push_out();
	raise(SIGUSR1);
	expect(handled == SIGUSR1);
	sigaction(SIGBUS, &action, NULL);
	raise(SIGBUS);
	expect(handled == SIGBUS);
	/* one that is for one time only, as crash handlers are */
	action.sa_flags |= (int)SA_RESETHAND;
	sigaction(SIGBUS, &action, NULL);
	handled = 0;
	raise(SIGBUS);
	expect(handled == SIGBUS);
	sigaction(SIGBUS, NULL, &action);
	expect(action.sa_handler == SIG_DFL);
}

/* ---- new programs, with arguments that lie in the pool ---- */

extern char **environ;

static char *out(const char *text)
{
	char *copy = malloc(5000); /* on a page of its own */

	strcpy(copy, text);
	expect(in_pool(copy));
	return copy;
}

static void check_spawn(void)
{
	char *path = out("/bin/sh"), **words = malloc(4 * sizeof *words);
	pid_t pid;

	words[0] = out("sh");
	words[1] = out("-c");
	words[2] = out("exit 7");
	words[3] = NULL;
	push_out();
	expect(posix_spawn(&pid, path, NULL, NULL, words, environ) == 0);
	expect(status_of(pid) == 7 << 8);
	push_out();
	pid = vfork();
	if (pid == 0) {
		execv(path, words);
		_exit(1);
	}
	expect(status_of(pid) == 7 << 8);
	push_out();
	expect(system(words[2]) == 7 << 8);
	push_out();
	pid = fork();
	if (pid == 0) {
		execv(path, words);
		_exit(1);
	}
	expect(status_of(pid) == 7 << 8);
}

static sigjmp_buf after_bus;

static void on_bus(int number)
{
	(void)number;
	siglongjmp(after_bus, 1);
}

/* How many pages are lost; all others hold what they must. */
static unsigned count_lost(const uint64_t *memory)
{
	volatile unsigned lost = 0;

	for (volatile size_t at = 0; at < LARGE; at += PAGE) {
		if (sigsetjmp(after_bus, 1) != 0)
			lost++;
		else
			expect(holds(memory + at / sizeof *memory, PAGE, 3 + at / sizeof *memory));
	}
	return lost;
}

/* A device goes while the program waits: a child has the same pages as its parent, and SIGBUS for the others. */
static void check_lost(void)
{
	struct sigaction action = {.sa_handler = on_bus};
	uint64_t *memory = aligned_alloc(PAGE, LARGE);
	unsigned lost;
	pid_t pid;

	fill(memory, LARGE, 3);
	sigaction(SIGBUS, &action, NULL);
	puts("ready");
	fflush(stdout);
	expect(getchar() == '\n');
	lost = count_lost(memory);
	printf("%u lost\n", lost);
	fflush(stdout);
	pid = fork();
	if (pid == 0)
		_exit(count_lost(memory) == lost ? 9 : 1);
	expect(status_of(pid) == 9 << 8);
}

/* ---- what the program does with memory by other calls ---- */

static void check_refused(void)
{
	char *memory = aligned_alloc(PAGE, MIB);

	memory[0] = 'a';
	expect(munmap(memory, PAGE) == -1 && errno == EINVAL);
	expect(madvise(memory, PAGE, MADV_DONTNEED) == -1 && errno == EINVAL);
	expect(mremap(memory, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED);
	expect(memory[0] == 'a');
	free(memory);
}

static void *at_exit;

static void free_at_exit(void)
{
	free(at_exit);
	free(malloc(100));
}

static void check_alone(void)
{
	check_family();
	check_libc();
	check_refused();
}

static const struct {
	const char *name;
	void (*check)(void);
} checks[] = {
	{"family", check_alone},
	{"threads", check_threads},
	{"calls", check_calls},
	{"signals", check_signals},
	{"spawn", check_spawn},
	{"lost", check_lost},
};

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	at_exit = malloc(100);
	atexit(free_at_exit);
	if (strcmp(what, "status") == 0)
		return 42;
	if (strcmp(what, "killed") == 0)
		raise(SIGTERM);
	if (strcmp(what, "where") == 0)
		return puts(in_pool(at_exit) ? "pool" : "ordinary") < 0;
	for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
		if (strcmp(what, checks[i].name) != 0)
			continue;
		checks[i].check();
		puts("ok");
		return 0;
	}
	return 2;
}
