/* SPDX-License-Identifier: Apache-2.0 */
/* Forks of a program that knows nothing of secpool, as plain.c. */
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include "tests/plain/plain.h"

/* --fork snapshot: a child has all as it was, whatever the parent does meanwhile; what it changes is its own. */
static unsigned long locked_kib(void)
{
	FILE *file = fopen("/proc/self/status", "r");
	char line[256];
	unsigned long kib = 0;

	expect(file);
	while (fgets(line, sizeof line, file))
		if (strncmp(line, "VmLck:", 6) == 0)
			kib = strtoul(line + 6, NULL, 10);
	fclose(file);
	return kib;
}

static void check_forked(void)
{
	uint64_t *memory = malloc(LARGE), *other;
	int ends[2];
	char byte = 0;
	unsigned long locked;
	pid_t pid;

	expect(pipe(ends) == 0);
	fill(memory, LARGE, 3);
	pid = fork();
	if (pid == 0) {
		expect(read(ends[0], &byte, 1) == 1); /* until the parent has changed all of it */
		expect(holds(memory, LARGE, 3));
		fill(memory, LARGE, 5);
		expect(holds(memory, LARGE, 5));
		other = malloc(LARGE);
		expect(!in_pool(other));
		memory = grow(memory, 2 * LARGE);
		expect(!in_pool(memory) && holds(memory, LARGE, 5));
		free(memory);
		free(other);
		locked = locked_kib();
		expect(locked >= LARGE >> 10);
		pid = fork(); /* a child's child: its copy does not reach swap either */
		if (pid == 0)
			_exit(locked_kib() == locked ? 8 : 1);
		expect(status_of(pid) == 8 << 8);
		exit(9);
	}
	fill(memory, LARGE, 4);
	expect(write(ends[1], "x", 1) == 1);
	expect(status_of(pid) == 9 << 8);
	expect(holds(memory, LARGE, 4));
	free(memory);
}

/* A fork that can't have its copy fails, and nothing else changes. */
static void check_forked_without_room(void)
{
	uint64_t *memory = malloc(LARGE);
	struct rlimit before, little;
	pid_t pid;

	fill(memory, LARGE, 3);
	expect(getrlimit(RLIMIT_AS, &before) == 0);
	little = (struct rlimit){.rlim_cur = MIB, .rlim_max = before.rlim_max};
	expect(setrlimit(RLIMIT_AS, &little) == 0);
	errno = 0;
	pid = fork();
	if (pid == 0)
		_exit(1);
	expect(pid == -1 && errno == ENOMEM);
	expect(setrlimit(RLIMIT_AS, &before) == 0);
	expect(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
	expect(holds(memory, LARGE, 3));
	pid = fork();
	if (pid == 0)
		_exit(holds(memory, LARGE, 3) ? 9 : 1);
	expect(status_of(pid) == 9 << 8);
}

static volatile uint64_t *touched;

static _Atomic bool stop;

/* Each pair of words is equal whenever it is looked at by one who stops the world; regions are made and pages move meanwhile. */
static void *change(void *arg)
{
	_Atomic uint64_t *pair = arg;

	for (uint64_t i = 1; !stop; i++) {
		pair[0] = i;
		pair[LARGE / THREADS / 2 / sizeof *pair] = i;
		if (i % 64 == 0)
			free(malloc((size_t)(i * 4097 % (3 * MIB))));
	}
	return NULL;
}

/* Again 20 ms after its end: on a busy machine it lasts longer than that, and the thread must get on between. */
static void look(int number)
{
	static const struct itimerval soon = {.it_value = {0, 20000}};
	static uint64_t sum;

	(void)number;
	for (size_t i = 0; i < LARGE / sizeof *touched; i += 16 * PAGE / sizeof *touched)
		sum += touched[i];
	if (!stop)
		setitimer(ITIMER_REAL, &soon, NULL);
}

/* Forks beside threads that store and allocate: the child sees one moment. */
static void check_forks(unsigned rounds)
{
	char *memory = calloc(1, LARGE);
	pthread_t threads[THREADS];
	struct sigaction alarmed = {.sa_handler = look, .sa_flags = SA_RESTART};
	struct itimerval soon = {.it_value = {0, 20000}}, never = {{0, 0}, {0, 0}};

	for (unsigned i = 0; i < THREADS; i++)
		expect(pthread_create(&threads[i], NULL, change, memory + i * (LARGE / THREADS)) ==
			0);
	/* a handler that touches all of it runs again and again */
	touched = (uint64_t *)memory;
	sigaction(SIGALRM, &alarmed, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	for (unsigned round = 0; round < rounds; round++) {
		pid_t pid = fork();
		if (pid == 0) {
			for (unsigned i = 0; i < THREADS; i++) {
				_Atomic uint64_t *pair = (void *)(memory + i * (LARGE / THREADS));
				uint64_t first = pair[0];
				uint64_t second = pair[LARGE / THREADS / 2 / sizeof *pair];
				expect(first == second || first == second + 1);
			}
			_exit(9);
		}
		expect(status_of(pid) == 9 << 8);
		push_out();
	}
	stop = true;
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	/* no thread is left in the handler to begin it again */
	setitimer(ITIMER_REAL, &never, NULL);
	free(memory);
}

/* --fork deny: what a child touches of the pool is SIGBUS; what it allocates is its own. */
static void check_denied(void)
{
	volatile char *memory = malloc(LARGE);
	char *other, *freed = malloc(LARGE);
	int status;
	pid_t pid;

	memory[100] = 1;
	pid = fork();
	if (pid == 0) {
		other = malloc(5000);
		memset(other, 1, 5000);
		other = grow(other, 50000);
		if (in_pool(other))
			_exit(1);
		free(other);
		free(freed);
		_exit(9);
	}
	expect(status_of(pid) == 9 << 8);
	pid = fork();
	if (pid == 0)
		_exit(memory[100]);
	status = status_of(pid);
	expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS); /* with or without a core file */
	expect(memory[100] == 1);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (strcmp(what, "forked") == 0)
		check_forked();
	else if (strcmp(what, "no-room") == 0)
		check_forked_without_room();
	else if (strcmp(what, "forks") == 0)
		check_forks(4);
	else if (strcmp(what, "many") == 0)
		check_forks(16);
	else if (strcmp(what, "denied") == 0)
		check_denied();
	else
		return 2;
	puts("ok");
	return 0;
}
