/* SPDX-License-Identifier: Apache-2.0 */
/* secpool-torture --seconds S | --crash-points: exit status 0 nothing was found, 1 something was, 2 wrong usage. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/base/clock.h"
#include "tests/torture/driver.h"
#include "tests/torture/work.h"

struct field {
	const char *name;
	uint64_t value;
	bool must_be_zero;
};

static int usage(FILE *to, int status)
{
	fprintf(to,
		"usage: secpool-torture --seconds S [--seed N] [--json] [--keep DIR]\n"
		"       secpool-torture --crash-points [--only NAME] [--seed N] [--json] [--keep "
		"DIR]\n"
		"Writers and readers against a model of every byte, on a pool of its own whose\n"
		"devices, daemons and clients are pulled, damaged and killed meanwhile.\n"
		"  --seconds S  how long\n"
		"  --seed N     the same seed gives the same faults and operations; from the clock "
		"if not given\n"
		"  --crash-points  stops clients and daemons at every named point and pulls or "
		"kills "
		"there\n"
		"  --only NAME  points with this in their name\n"
		"  --json       the result as one object\n"
		"  --keep DIR   the daemons' logs are copied there\n"
		"What was done and found goes to standard error, the result to standard output.\n");
	return status;
}

static bool parse_number(const char *text, uint64_t *ret_number)
{
	char *end;

	if (!text || !*text || *text == '-')
		return false;
	*ret_number = strtoull(text, &end, 0);
	return *end == '\0';
}

static bool parse(int argc, char **argv, struct driver *driver)
{
	uint64_t seconds = 0;

	driver->seed = clock_calendar_ns() / 1000;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0) {
			driver->json = true;
			continue;
		}
		if (strcmp(argv[i], "--crash-points") == 0) {
			driver->crash = true;
			continue;
		}
		if (i + 1 == argc)
			return false;
		if (strcmp(argv[i], "--keep") == 0)
			driver->keep = argv[i + 1];
		else if (strcmp(argv[i], "--only") == 0)
			driver->only = argv[i + 1];
		else if (strcmp(argv[i], "--seconds") == 0
				 ? !parse_number(argv[i + 1], &seconds)
				 : strcmp(argv[i], "--seed") != 0 ||
					   !parse_number(argv[i + 1], &driver->seed))
			return false;
		i++;
	}
	driver->seconds = (unsigned)seconds;
	if (driver->crash)
		return seconds == 0;
	return seconds > 0 && seconds <= 7 * 24 * 3600 && !driver->only;
}

static uint64_t count_faults(const struct driver *driver)
{
	uint64_t sum = 0;

	for (unsigned i = 0; nemesis_fault_name(i); i++)
		sum += driver->faults[i];
	return sum;
}

static void print_json(const struct driver *driver, const struct field *fields, size_t count)
{
	printf("{\"seed\":%llu,\"seconds\":%u", (unsigned long long)driver->seed, driver->seconds);
	for (size_t i = 0; i < count; i++)
		printf(",\"%s\":%llu", fields[i].name, (unsigned long long)fields[i].value);
	printf(",\"faults\":{");
	for (unsigned i = 0; nemesis_fault_name(i); i++)
		printf("%s\"%s\":%llu", i ? "," : "", nemesis_fault_name(i),
			(unsigned long long)driver->faults[i]);
	printf("}}\n");
}

static void print_table(const struct driver *driver, const struct field *fields, size_t count)
{
	printf("  %-22s %llu\n", "seed", (unsigned long long)driver->seed);
	printf("  %-22s %u\n", "seconds", driver->seconds);
	printf("  %-22s %llu:", "faults", (unsigned long long)count_faults(driver));
	for (unsigned i = 0; nemesis_fault_name(i); i++)
		if (driver->faults[i])
			printf(" %s %llu", nemesis_fault_name(i),
				(unsigned long long)driver->faults[i]);
	printf("\n");
	printf("  %-22s", "slowest, ms");
	for (uint32_t i = 0; i < BOARD_OPERATIONS && work_name(i); i++)
		printf(" %s %llu;", work_name(i),
			(unsigned long long)(atomic_load(&driver->board->slowest_ns[i]) /
					     CLOCK_NS_PER_MS));
	printf("\n");
	for (size_t i = 0; i < count; i++)
		printf("  %-22s %llu%s\n", fields[i].name, (unsigned long long)fields[i].value,
			fields[i].must_be_zero && fields[i].value ? "   <- must be 0" : "");
}

static int print_result(const struct driver *driver)
{
	struct board *b = driver->board;
	const struct field fields[] = {
		{"operations", atomic_load(&b->operations), false},
		{"operations_passed_over", atomic_load(&b->skipped), false},
		{"crash_points", driver->crash_points, false},
		{"regions", atomic_load(&b->regions), false},
		{"bytes_checked", atomic_load(&b->bytes_checked), false},
		{"lost_pages", atomic_load(&b->lost_blocks), false},
		{"barred", atomic_load(&b->barred_blocks), false},
		{"wrong_bytes", atomic_load(&b->wrong_bytes), true},
		{"zero_pages", atomic_load(&b->zero_pages), true},
		{"stale_pages", atomic_load(&b->stale_pages), true},
		{"foreign_bytes", atomic_load(&b->foreign_bytes), true},
		{"unreported_losses", atomic_load(&b->unreported_losses), true},
		{"uncovered_losses", atomic_load(&b->uncovered_losses), true},
		{"hangs", driver->hangs, true},
		{"client_crashes", driver->crashes, true},
		{"other_errors", atomic_load(&b->other_errors) + driver->troubles, true},
	};
	size_t count = sizeof fields / sizeof *fields;
	/* a run in which nothing was done shows nothing */
	bool good = atomic_load(&b->operations) > 0 && atomic_load(&b->bytes_checked) > 0;

	for (size_t i = 0; i < count; i++)
		good = good && !(fields[i].must_be_zero && fields[i].value);
	if (driver->json)
		print_json(driver, fields, count);
	else
		print_table(driver, fields, count);
	return good ? 0 : 1;
}

int main(int argc, char **argv)
{
	static struct driver driver;

	if (argc == 2 && strcmp(argv[1], "--help") == 0)
		return usage(stdout, 0);
	if (!parse(argc, argv, &driver))
		return usage(stderr, 2);
	fprintf(stderr, "secpool-torture: seed %llu", (unsigned long long)driver.seed);
	fprintf(stderr, driver.crash ? ", crash points\n" : ", %u s\n", driver.seconds);
	driver.board = mmap(NULL, sizeof *driver.board, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (driver.board == MAP_FAILED) {
		perror("secpool-torture: mmap");
		return 1;
	}
	driver_catch_signals();
	stack_prepare(&driver);
	if (driver.crash && !crash_prepare(&driver))
		return 1;
	stack_start(&driver);
	driver.begun_ns = driver.quiet_since_ns = clock_now_ns();
	for (unsigned i = 0; i < BOARD_CLIENTS; i++)
		driver_start_client(&driver, i);
	if (driver.crash)
		crash_run(&driver);
	else
		nemesis_run(&driver);
	driver_end_clients(&driver);
	stack_stop(&driver);
	return print_result(&driver);
}
