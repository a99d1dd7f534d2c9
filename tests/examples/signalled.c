/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loss modes signal and kill: when pages of the region are lost, keymgrd signals the process, also if it never touches them. With signal the handler learns the region's number; kill is for programs
 * that must not go on with what they have.
 *
 *   build/tests/examples/signalled [kill]    then, when it says "ready", pull the device that has the region
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "secpool.h"

enum { WAIT_SECONDS = 20 };

static const size_t BYTES = 32 << 20;

static volatile sig_atomic_t told;
static volatile uint64_t told_region;

static void on_loss(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	told_region = (uint64_t)(uintptr_t)info->si_value.sival_ptr;
	told = 1;
}

static void check(enum secpool_error error, const char *what)
{
	if (error == SECPOOL_OK)
		return;
	fprintf(stderr, "%s: %s\n", what, secpool_error_detail());
	exit(1);
}

int main(int argc, char **argv)
{
	int kills = argc > 1 && strcmp(argv[1], "kill") == 0;
	struct secpool_options options = {.size = sizeof options, .local_bytes = 8 << 20};
	struct secpool_region_options wanted = {.size = sizeof wanted,
		.bytes = BYTES,
		.on_loss = kills ? SECPOOL_ON_LOSS_KILL : SECPOOL_ON_LOSS_SIGNAL,
		.loss_signal = kills ? 0 : SIGUSR1,
		.name = "signalled"};
	struct sigaction action = {.sa_sigaction = on_loss, .sa_flags = SA_SIGINFO};
	struct secpool_region *region;
	struct secpool *pool;

	sigaction(SIGUSR1, &action, NULL);
	check(secpool_open("default", &options, &pool), "open");
	check(secpool_region_create(pool, &wanted, &region), "create");
	memset(secpool_region_address(region), 7, BYTES);
	puts("ready");
	fflush(stdout);
	for (int i = 0; i < WAIT_SECONDS && !told; i++)
		sleep(1); /* a signal ends it early */
	if (!told || told_region != secpool_region_number(region)) {
		puts("nothing was told");
		return 1;
	}
	printf("told of a loss in region %llu\n", (unsigned long long)told_region);
	check(secpool_region_release(region, NULL), "release");
	secpool_close(pool);
	return 0;
}
