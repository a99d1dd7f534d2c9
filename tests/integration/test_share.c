/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A list built by one process and walked by ten others by its own pointers: sealed, granted, left behind by its writer, still there after both daemons' restart, read while a device is pulled, taken back from a tenant, and ended by its owner.
 * timeout: 240
 */
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/fault.h"
#include "lib/signals.h"
#include "lib/worker.h"
#include "tests/support/support.h"

enum { PAGE = 4096, NODES = 3072, READERS = 10, LOCAL = 4 << 20, WAIT_MS = 120000, STEP = 1021 };

/* One to a page, in an order that no read-ahead knows. */
struct node {
	struct node *next;
	uint64_t value;
	uint8_t rest[PAGE - 16];
};

/* What the processes share. */
static struct board {
	atomic_uintptr_t address;
	atomic_uint walks[READERS], attached, stopped;
	atomic_bool stop;
} * board;

static sigjmp_buf after_fault;
static volatile sig_atomic_t raised;

static void on_fault(int number)
{
	raised = number;
	siglongjmp(after_fault, 1);
}

static void catch_faults(void)
{
	struct sigaction action = {.sa_handler = on_fault};

	SUPPORT_CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
	SUPPORT_CHECK(sigaction(SIGBUS, &action, NULL) == 0);
}

/* The signal that a store, or a load, raises; 0: none. */
static int touch(volatile uint64_t *at, bool store)
{
	raised = 0;
	if (sigsetjmp(after_fault, 1) == 0) {
		if (store)
			*at = 1;
		else
			(void)*at;
	}
	return raised;
}

static uint64_t value_of(uint64_t number)
{
	return number * 2654435761u + 7;
}

static void build(struct node *nodes)
{
	for (uint64_t i = 0; i < NODES; i++) {
		struct node *node = &nodes[i * STEP % NODES];
		node->value = value_of(i);
		support_fill(node->rest, sizeof node->rest, i);
		node->next = i + 1 < NODES ? &nodes[(i + 1) * STEP % NODES] : NULL;
	}
}

static void walk(const struct node *first)
{
	uint64_t i = 0;

	for (const struct node *node = first; node; node = node->next, i++)
		SUPPORT_CHECK(node->value == value_of(i) &&
			      support_matches(node->rest, sizeof node->rest, i));
	SUPPORT_CHECK(i == NODES);
}

/* ---- the writer ---- */

static void check_frozen(struct secpool_region *region)
{
	struct node *first = secpool_region_address(region);
	uint64_t number = 1;

	walk(first);
	SUPPORT_CHECK(touch(&first->value, true) == SIGSEGV);
	SUPPORT_CHECK(touch(&first[NODES - 1].value, true) == SIGSEGV);
	SUPPORT_CHECK(secpool_write(region, 0, &number, sizeof number) == SECPOOL_E_DENIED);
	SUPPORT_CHECK(secpool_pin(region, 0, PAGE) == SECPOOL_E_DENIED);
	SUPPORT_CHECK(secpool_region_seal(region, "another") == SECPOOL_E_EXISTS);
	SUPPORT_OK(secpool_flush(region));
	walk(first);
}

/* Sealing flushes the region first of all, once it is frozen: then others come with it, when it is flushed. */
static bool interfere;

enum secpool_error __real_secpool_flush(struct secpool_region *region);
enum secpool_error __wrap_secpool_flush(struct secpool_region *region);
enum secpool_error __wrap_secpool_flush(struct secpool_region *region)
{
	enum secpool_error error = __real_secpool_flush(region);
	struct uffd_fault late = {.address = (uintptr_t)secpool_region_address(region),
		.write = true,
		.protect = true};
	struct worker *worker;
	sigset_t before;

	if (!interfere)
		return error;
	interfere = false;
	SUPPORT_CHECK(secpool_region_seal(region, "list") == SECPOOL_E_BUSY);
	SUPPORT_CHECK(secpool_pin(region, 0, PAGE) == SECPOOL_E_DENIED);
	/* a store's fault that waited in the queue while the region was frozen: the page stays as it was flushed */
	signals_block(&before);
	worker = worker_borrow(region->pool);
	fault_serve(worker, &late);
	SUPPORT_CHECK(page_state(atomic_load(&region->pages[0].word)) != PAGE_DIRTY);
	worker_give_back(worker);
	signals_restore(&before);
	return error;
}

/* What can't be sealed goes on as it was. */
static void check_refused(struct secpool *pool)
{
	struct secpool_region *region = support_region(pool, 1 << 20, 2);
	uint8_t *at = secpool_region_address(region);

	memset(at, 5, 1 << 20);
	SUPPORT_CHECK(secpool_region_seal(region, "") == SECPOOL_E_INVALID);
	SUPPORT_CHECK(secpool_region_seal(region, "a/b") == SECPOOL_E_INVALID);
	SUPPORT_CHECK(secpool_region_seal(region, "list") == SECPOOL_E_EXISTS);
	SUPPORT_CHECK(secpool_region_grant(region, "alpha2") == SECPOOL_E_INVALID);
	SUPPORT_OK(secpool_pin(region, 0, PAGE));
	SUPPORT_CHECK(secpool_region_seal(region, "pinned") == SECPOOL_E_BUSY);
	SUPPORT_OK(secpool_unpin(region, 0, PAGE));
	for (size_t i = 0; i < 1 << 20; i++)
		SUPPORT_CHECK(at[i] == 5);
	memset(at, 6, 1 << 20);
	SUPPORT_OK(secpool_region_release(region, NULL));
}

static int write_list(void *arg)
{
	struct secpool *pool = support_open("alpha", LOCAL);
	struct secpool_region *region = support_region(pool, sizeof(struct node) * NODES, 2);

	(void)arg;
	catch_faults();
	build(secpool_region_address(region));
	interfere = true;
	SUPPORT_OK(secpool_region_seal(region, "list"));
	SUPPORT_CHECK(!interfere);
	check_frozen(region);
	check_refused(pool);
	SUPPORT_OK(secpool_region_grant(region, "alpha2"));
	SUPPORT_OK(secpool_region_grant(region, "alpha2"));
	SUPPORT_CHECK(secpool_region_grant(region, "brief") == SECPOOL_E_DENIED);
	SUPPORT_CHECK(secpool_region_grant(region, "who") == SECPOOL_E_UNKNOWN_TENANT);
	atomic_store(&board->address, (uintptr_t)secpool_region_address(region));
	secpool_close(pool);
	return 0;
}

/* ---- the readers ---- */

static struct secpool *open_reader(const char *tenant, unsigned number)
{
	struct secpool_options options = {.size = sizeof options,
		.local_bytes = LOCAL,
		.fault_mode = number % 2 ? SECPOOL_FAULT_INLINE : SECPOOL_FAULT_THREAD,
		.read_only = number % 3 != 0};
	struct secpool *pool;

	SUPPORT_OK(secpool_open(tenant, &options, &pool));
	return pool;
}

/* Others and their regions are no affair of a reader's. */
static void check_reader(struct secpool *pool, struct secpool_region *region, unsigned number)
{
	struct secpool_region_options options = {.size = sizeof options, .bytes = PAGE};
	struct secpool_region *other;

	SUPPORT_CHECK(touch((uint64_t *)secpool_region_address(region), true) == SIGSEGV);
	SUPPORT_CHECK(secpool_region_grant(region, "alpha2") == SECPOOL_E_DENIED);
	if (number % 3 != 0)
		SUPPORT_CHECK(secpool_region_create(pool, &options, &other) == SECPOOL_E_DENIED);
}

static int read_list(void *arg)
{
	unsigned number = *(unsigned *)arg;
	struct secpool *pool = open_reader("alpha2", number);
	struct secpool_region *region;
	struct secpool_event event;
	struct node *first;

	catch_faults();
	SUPPORT_OK(secpool_region_attach(pool, "alpha/list", 0, &region));
	first = secpool_region_address(region);
	SUPPORT_CHECK((uintptr_t)first == atomic_load(&board->address));
	check_reader(pool, region, number);
	atomic_fetch_add(&board->attached, 1);
	while (!atomic_load(&board->stop)) {
		walk(first);
		atomic_fetch_add(&board->walks[number], 1);
	}
	atomic_fetch_add(&board->stopped, 1);
	SUPPORT_CHECK(support_event(pool, SECPOOL_EVENT_REGION_ENDED, WAIT_MS, &event));
	SUPPORT_CHECK(touch(&first->value, false) == SIGBUS);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
	return 0;
}

static bool all_there(void *arg)
{
	return atomic_load((atomic_uint *)arg) == READERS;
}

static bool all_walked(void *arg)
{
	const unsigned *before = arg;

	for (unsigned i = 0; i < READERS; i++)
		if (atomic_load(&board->walks[i]) < before[i] + 2)
			return false;
	return true;
}

/* Each of them walks the whole list once more, begun after this. */
static void await_walks(void)
{
	unsigned before[READERS];

	for (unsigned i = 0; i < READERS; i++)
		before[i] = atomic_load(&board->walks[i]);
	SUPPORT_CHECK(support_wait(all_walked, before, WAIT_MS));
}

/* ---- the owner, in another process ---- */

static int take_back(void *arg)
{
	struct secpool *pool = open_reader("alpha", 0);
	struct secpool_region *region;

	(void)arg;
	SUPPORT_OK(secpool_region_attach(pool, "list", SECPOOL_ATTACH_OWNER, &region));
	walk(secpool_region_address(region));
	SUPPORT_OK(secpool_region_revoke(region, "alpha2"));
	SUPPORT_CHECK(secpool_region_revoke(region, "alpha2") == SECPOOL_E_NOT_FOUND);
	secpool_close(pool);
	return 0;
}

/* A tenant that has no grant, one that had one, and a name that is none's learn the same. */
static int attach_none(void *arg)
{
	struct secpool *pool = open_reader(arg, 1);
	struct secpool_region *region;

	SUPPORT_CHECK(secpool_region_attach(pool, "alpha/list", 0, &region) == SECPOOL_E_NOT_FOUND);
	SUPPORT_CHECK(secpool_region_attach(pool, "alpha/none", 0, &region) == SECPOOL_E_NOT_FOUND);
	SUPPORT_CHECK(secpool_region_attach(pool, "alpha/list", SECPOOL_ATTACH_OWNER, &region) ==
		      SECPOOL_E_DENIED);
	SUPPORT_CHECK(secpool_region_attach(pool, "alpha/", 0, &region) == SECPOOL_E_INVALID);
	SUPPORT_CHECK(secpool_region_attach(pool, "list", 8, &region) == SECPOOL_E_INVALID);
	secpool_close(pool);
	return 0;
}

static int end_it(void *arg)
{
	struct secpool *pool = open_reader("alpha", 0);
	struct secpool_receipt receipt = {.size = sizeof receipt};
	struct secpool_region *region;

	(void)arg;
	/* without the flag it is one reader more */
	SUPPORT_OK(secpool_region_attach(pool, "list", 0, &region));
	SUPPORT_OK(secpool_region_release(region, &receipt));
	SUPPORT_CHECK(receipt.text[0] == '\0');
	SUPPORT_OK(secpool_region_attach(pool, "list", SECPOOL_ATTACH_OWNER, &region));
	SUPPORT_OK(secpool_region_release(region, &receipt));
	if (!strstr(receipt.text, "\\\"clients\\\":\\\"readers\\\""))
		support_fail("no readers in the receipt: %s", receipt.text);
	SUPPORT_CHECK(secpool_region_attach(pool, "list", 0, &region) == SECPOOL_E_NOT_FOUND);
	secpool_close(pool);
	return 0;
}

static void run(int (*work)(void *arg), const char *tenant)
{
	SUPPORT_CHECK(support_join(support_fork(work, (void *)(uintptr_t)tenant), WAIT_MS) == 0);
}

static void await_devices(void)
{
	support_wait_device("dev0", "online", true, WAIT_MS);
	support_wait_device("dev1", "online", true, WAIT_MS);
}

static void restart_daemons(void)
{
	support_kill_daemon("hotplugd");
	support_kill_daemon("keymgrd");
	support_up(2, "64M", NULL);
	await_devices();
	support_wait_regions(1, WAIT_MS);
}

int main(void)
{
	static unsigned numbers[READERS];
	pid_t readers[READERS];
	char text[8192];

	board = mmap(
		NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	SUPPORT_CHECK(board != MAP_FAILED);
	support_up(2, "64M", NULL);
	await_devices();
	run(write_list, NULL);
	support_wait_regions(1, WAIT_MS);
	SUPPORT_CHECK(support_cli(text, sizeof text, "region", "list", "--json", NULL) == 0);
	SUPPORT_CHECK(strstr(text, "\"sealed\"") && strstr(text, "\"list\""));
	restart_daemons();
	run(attach_none, "brief");
	for (unsigned i = 0; i < READERS; i++) {
		numbers[i] = i;
		readers[i] = support_fork(read_list, &numbers[i]);
	}
	SUPPORT_CHECK(support_wait(all_there, &board->attached, WAIT_MS));
	await_walks();
	puts("ten readers walk the list");
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", "dev1", NULL) == 0);
	await_walks();
	puts("a device was pulled: they go on");
	run(take_back, NULL);
	run(attach_none, "alpha2");
	await_walks();
	atomic_store(&board->stop, true);
	/* none is in the middle of the list when it ends */
	SUPPORT_CHECK(support_wait(all_there, &board->stopped, WAIT_MS));
	run(end_it, NULL);
	for (unsigned i = 0; i < READERS; i++)
		SUPPORT_CHECK(support_join(readers[i], WAIT_MS) == 0);
	support_wait_regions(0, WAIT_MS);
	support_down();
	return 0;
}
