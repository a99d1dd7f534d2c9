/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who meets a machine check in `make check-vm`: maps the devdax device, touches its first bytes and turns in user mode, where a machine check that QEMU injects is survived (in the kernel it would be a panic).
 * Prints the SIGBUS that comes. Usage: busy DEVICE SECONDS. Exit status 1 when none came.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { UNIT = 2 << 20, TURNS = 1 << 22 };

static void on_bus(int number, siginfo_t *info, void *context)
{
	char text[64];
	int length;

	(void)number;
	(void)context;
	length = snprintf(text, sizeof text, "SIGBUS code %d lsb %d\n", info->si_code,
		(int)info->si_addr_lsb);
	(void)!write(STDOUT_FILENO, text, (size_t)length);
	_exit(0);
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
	struct sched_param first = {.sched_priority = 1};
	const volatile char *map;
	time_t end;
	int fd;

	if (argc != 3)
		return 2;
	fd = open(argv[1], O_RDWR);
	map = mmap(NULL, UNIT, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd < 0 || map == MAP_FAILED || sigaction(SIGBUS, &action, NULL) != 0)
		return 2;
	(void)map[0];
	/* so that nobody else is on the CPU when it comes */
	if (sched_setscheduler(0, SCHED_FIFO, &first) != 0)
		return 2;
	puts("BUSY");
	fflush(stdout);
	end = time(NULL) + atoi(argv[2]);
	while (time(NULL) < end)
		for (volatile long i = 0; i < TURNS; i++)
			;
	return 1;
}
