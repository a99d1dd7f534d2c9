/* SPDX-License-Identifier: Apache-2.0 */
/* The media of an emulated device: made, kept, pulled, brought back; and the count of bad bytes
 * (health). */
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "hotplug/emulator.h"
#include "hotplug/health.h"
#include "hotplug/inject.h"
#include "hotplug/latency.h"
#include "lib/base/guarded_copy.h"
#include "lib/base/media.h"
#include "lib/base/os.h"
#include "lib/wire/msg.h"

enum { BYTES = 8 << 20, DATA_AT = 3 << 20, DATA_BYTES = 12345 };

static char folder[] = "/dev/shm/secpool-emulator-XXXXXX";
static char path_buffer[PATH_MAX];

static const char *path(const char *name)
{
	snprintf(path_buffer, sizeof path_buffer, "%s/%s", folder, name);
	return path_buffer;
}

static int there(const char *name)
{
	return access(path(name), F_OK) == 0;
}

static int set_up(void **state)
{
	(void)state;
	strcpy(folder + strlen(folder) - 6, "XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	return os_remove_tree(folder) == SECPOOL_OK ? 0 : -1;
}

static void open_new(int *fd, uint64_t *mark)
{
	*fd = -1;
	*mark = 0;
	assert_int_equal(emulator_open(folder, BYTES, fd, mark), SECPOOL_OK);
	assert_true(*fd >= 0);
	assert_true(*mark != 0);
	assert_true(emulator_look(*fd, BYTES));
}

static void made_once(void **state)
{
	uint64_t mark, again;
	struct stat status;
	int fd;

	(void)state;
	open_new(&fd, &mark);
	assert_int_equal(fstat(fd, &status), 0);
	assert_int_equal(status.st_size, media_bytes(true, BYTES));
	assert_int_equal(status.st_blocks, EMUMEDIA_CONTROL_BYTES / 512); /* else sparse */
	assert_int_equal(status.st_mode & 0777, 0600);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
	close(fd);
	open_new(&fd, &again); /* a restart of the daemon: the same media */
	assert_true(again == mark);
	close(fd);
}

static void mark_that_is_wrong_is_replaced(void **state)
{
	static const char *const texts[] = {"", "123", "zzzzzzzzzzzzzzzz\n", "0000000000000000\n"};
	uint64_t mark, last = 0;
	int fd;

	(void)state;
	open_new(&fd, &last);
	close(fd);
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		assert_int_equal(
			os_write_file_durable(path("mark"), texts[i], strlen(texts[i]), 0600),
			SECPOOL_OK);
		open_new(&fd, &mark);
		close(fd);
		assert_true(mark != last);
		last = mark;
	}
}

static void pull_and_plug(void **state)
{
	uint8_t data[DATA_BYTES], back[DATA_BYTES];
	uint64_t mark, other;
	struct stat status;
	int fd, gone = -1;

	(void)state;
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i * 7 + 1);
	open_new(&fd, &mark);
	assert_int_equal(pwrite(fd, data, sizeof data, DATA_AT), sizeof data);
	assert_int_equal(emulator_save(folder, fd), SECPOOL_OK);
	assert_true(emulator_look(fd, BYTES)); /* a copy alone is no pull */
	emulator_cut(folder, fd);
	assert_false(emulator_look(fd, BYTES));
	assert_false(there("media"));
	close(fd);
	assert_int_equal(stat(path("media.pulled"), &status), 0);
	assert_int_equal(status.st_size, media_bytes(true, BYTES));
	assert_true(status.st_blocks * 512 < 64 << 10); /* holes stayed holes */
	assert_int_equal(emulator_open(folder, BYTES, &gone, &other), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(gone, -1);
	assert_int_equal(emulator_restore(folder, BYTES, &fd, &other), SECPOOL_OK);
	assert_true(other != mark);
	assert_false(there("media.pulled"));
	assert_int_equal(pread(fd, back, sizeof back, DATA_AT), sizeof back);
	assert_memory_equal(back, data, sizeof data);
	close(fd);
	open_new(&fd, &mark);
	assert_true(mark == other); /* the new mark is the one that is kept */
	assert_int_equal(emulator_restore(folder, BYTES, &gone, &other), SECPOOL_E_BUSY);
	assert_int_equal(gone, -1);
	assert_true(emulator_look(fd, BYTES));
	close(fd);
}

static void removed_by_others(void **state)
{
	uint64_t mark, other;
	int fd;

	(void)state;
	open_new(&fd, &mark);
	assert_int_equal(truncate(path("media"), 4096), 0);
	assert_false(emulator_look(fd, BYTES));
	close(fd);
	assert_int_equal(emulator_open(folder, BYTES, &fd, &other), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(emulator_restore(folder, BYTES, &fd, &other), SECPOOL_OK);
	assert_true(other != mark);
	assert_int_equal(unlink(path("media")), 0);
	assert_false(emulator_look(fd, BYTES)); /* still mapped by clients, but not ours any more */
	emulator_cut(folder, fd);
	close(fd);
	assert_int_equal(emulator_open(folder, BYTES, &fd, &mark), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(emulator_restore(folder, 2 * BYTES, &fd, &mark), SECPOOL_OK);
	assert_true(emulator_look(fd, 2 * BYTES));
	close(fd);
}

/* A file that took the media's name is not what is cut. */
static void cut_spares_others(void **state)
{
	uint64_t mark;
	int fd;

	(void)state;
	open_new(&fd, &mark);
	assert_int_equal(rename(path("media"), "/dev/shm/secpool-emulator-moved"), 0);
	assert_int_equal(os_write_file_durable(path("media"), "x", 1, 0600), SECPOOL_OK);
	emulator_cut(folder, fd);
	assert_true(there("media"));
	assert_int_equal(unlink("/dev/shm/secpool-emulator-moved"), 0);
	close(fd);
}

static void mapped_access_fails_after_cut(void **state)
{
	uint8_t byte = 0;
	uint64_t mark;
	void *map;
	int fd;

	(void)state;
	open_new(&fd, &mark);
	assert_int_equal(guarded_copy_install(), SECPOOL_OK);
	map = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(guarded_copy(&byte, map, 1), SECPOOL_OK);
	emulator_cut(folder, fd);
	assert_int_equal(guarded_copy(&byte, map, 1), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(munmap(map, BYTES), 0);
	close(fd);
}

static void links_and_errors(void **state)
{
	uint64_t mark = 7;
	int fd = -1;

	(void)state;
	assert_int_equal(symlink("/dev/zero", path("media")), 0);
	assert_int_not_equal(emulator_open(folder, BYTES, &fd, &mark), SECPOOL_OK);
	assert_int_equal(unlink(path("media")), 0);
	assert_int_equal(mkfifo(path("media"), 0600), 0);
	assert_int_equal(emulator_open(folder, BYTES, &fd, &mark), SECPOOL_E_INVALID);
	assert_int_equal(emulator_open("/nowhere/at/all", BYTES, &fd, &mark), SECPOOL_E_NOT_FOUND);
	assert_int_equal(
		emulator_restore("/nowhere/at/all", BYTES, &fd, &mark), SECPOOL_E_NOT_FOUND);
	assert_int_equal(emulator_save("/nowhere/at/all", 0), SECPOOL_E_NOT_FOUND);
	assert_int_equal(fd, -1);
	assert_int_equal(mark, 7);
}

static uint64_t word_at(int fd, size_t at)
{
	uint64_t word = 0;

	assert_int_equal(pread(fd, &word, sizeof word, (off_t)(BYTES + at)), sizeof word);
	return word;
}

/* The canary stays as long as the media do, and is another for each incarnation; so is the behaviour. */
static void canary_and_behaviour(void **state)
{
	uint64_t mark, canary, next;
	int fd, again;

	(void)state;
	open_new(&fd, &mark);
	canary = word_at(fd, MEDIA_CANARY_AT);
	assert_true(canary != 0);
	assert_true(word_at(fd, EMUMEDIA_WORD_AT) == EMUMEDIA_NORMAL);
	assert_int_equal(emulator_behave(fd, BYTES, EMUMEDIA_SLOW, 5), SECPOOL_OK);
	assert_true(word_at(fd, EMUMEDIA_WORD_AT) == emumedia_word(EMUMEDIA_SLOW, 5));
	assert_int_equal(emulator_open(folder, BYTES, &again, &mark), SECPOOL_OK);
	assert_true(word_at(again, MEDIA_CANARY_AT) == canary);
	assert_true(word_at(again, EMUMEDIA_WORD_AT) == emumedia_word(EMUMEDIA_SLOW, 5));
	close(again);
	assert_int_equal(emulator_save(folder, fd), SECPOOL_OK);
	emulator_cut(folder, fd);
	close(fd);
	assert_int_equal(emulator_restore(folder, BYTES, &fd, &mark), SECPOOL_OK);
	next = word_at(fd, MEDIA_CANARY_AT);
	assert_true(next != 0 && next != canary);
	assert_true(word_at(fd, EMUMEDIA_WORD_AT) == EMUMEDIA_NORMAL);
	close(fd);
}

static void probe_tells(void **state)
{
	uint64_t mark;
	int fd;

	(void)state;
	assert_int_equal(guarded_copy_install(), SECPOOL_OK);
	open_new(&fd, &mark);
	assert_int_equal(emulator_probe(fd, BYTES, 1000000), SECPOOL_OK);
	/* memory of this machine, however busy it is */
	assert_in_range(latency_measure(fd, BYTES), 1, 100000);
	assert_int_equal(emulator_behave(fd, BYTES, EMUMEDIA_STUCK, 0), SECPOOL_OK);
	assert_int_equal(emulator_probe(fd, BYTES, 1000000), SECPOOL_E_TIMEOUT);
	assert_int_equal(latency_measure(fd, BYTES), 0);
	assert_int_equal(emulator_behave(fd, BYTES, EMUMEDIA_SLOW, 200000), SECPOOL_OK);
	assert_in_range(latency_measure(fd, BYTES), 150000, 1000000000);
	/* so slow that a thread which is not run for a while does not find it in time */
	assert_int_equal(emulator_behave(fd, BYTES, EMUMEDIA_SLOW, 500000000), SECPOOL_OK);
	assert_int_equal(emulator_probe(fd, BYTES, 1000000), SECPOOL_E_TIMEOUT);
	assert_int_equal(emulator_probe(fd, BYTES, 60000000000), SECPOOL_OK);
	assert_int_equal(emulator_behave(fd, BYTES, EMUMEDIA_SILENT, 0), SECPOOL_OK);
	assert_int_equal(emulator_probe(fd, BYTES, 1000000), SECPOOL_E_INTEGRITY);
	emulator_cut(folder, fd);
	assert_int_equal(emulator_probe(fd, BYTES, 1000000), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(latency_measure(fd, BYTES), 0);
	close(fd);
}

/* The daemon ended while the device was silent: what was stored meanwhile went nowhere, so these are pulled media. */
static void silence_is_a_pull(void **state)
{
	static const char data[] = "from before the silence";
	char back[sizeof data];
	uint64_t mark, other;
	int fd, again = -1;

	(void)state;
	open_new(&fd, &mark);
	assert_int_equal(pwrite(fd, data, sizeof data, DATA_AT), sizeof data);
	assert_int_equal(emulator_behave(fd, BYTES, EMUMEDIA_SILENT, 0), SECPOOL_OK);
	assert_int_equal(emulator_open(folder, BYTES, &again, &other), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(again, -1);
	assert_false(emulator_look(fd, BYTES));
	close(fd);
	assert_int_equal(emulator_restore(folder, BYTES, &fd, &other), SECPOOL_OK);
	assert_true(other != mark);
	assert_int_equal(pread(fd, back, sizeof back, DATA_AT), sizeof back);
	assert_memory_equal(back, data, sizeof data);
	close(fd);
}

static void injected(void **state)
{
	uint8_t *before = malloc(BYTES), *after = malloc(BYTES);
	uint64_t mark, canary;
	size_t changed = 0;
	int fd;

	(void)state;
	open_new(&fd, &mark);
	canary = word_at(fd, MEDIA_CANARY_AT);
	assert_non_null(before);
	assert_non_null(after);
	assert_int_equal(pread(fd, before, BYTES, 0), BYTES);
	assert_int_equal(inject_corrupt(fd, BYTES, 500), SECPOOL_OK);
	assert_int_equal(pread(fd, after, BYTES, 0), BYTES);
	for (size_t i = 0; i < BYTES; i++)
		changed += before[i] != after[i];
	assert_true(changed > 490 && changed <= 500); /* a place may be hit twice */
	assert_true(word_at(fd, MEDIA_CANARY_AT) == canary);
	assert_true(emulator_look(fd, BYTES));
	assert_int_equal(inject_short(fd, BYTES), SECPOOL_OK);
	assert_false(emulator_look(fd, BYTES));
	assert_int_equal(pread(fd, after, BYTES, 0), BYTES / 2);
	close(fd);
	assert_int_equal(inject_corrupt(-1, BYTES, 1), SECPOOL_E_SYSTEM);
	assert_int_equal(inject_short(-1, BYTES), SECPOOL_E_SYSTEM);
	free(before);
	free(after);
}

static void injections_are_read(void **state)
{
	static const char *const wrong[] = {"", "Stuck", "stuck:1", "slow", "slow:", "slow:0",
		"slow:60001", "slow:-1", "slow:5ms", "corrupt:", "corrupt:0", "corrupt:65537",
		"corrupt:99999999999999999999", "flap:17", "flapping", "normal:", "short:1", "no"};
	struct inject inject = {.kind = INJECT_FLAP, .number = 77};

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		assert_int_equal(inject_parse(wrong[i], &inject), SECPOOL_E_INVALID);
	assert_true(inject.kind == INJECT_FLAP && inject.number == 77);
	assert_int_equal(inject_parse("corrupt", &inject), SECPOOL_OK);
	assert_true(inject.kind == INJECT_CORRUPT && inject.number == 1);
	assert_int_equal(inject_parse("corrupt:65536", &inject), SECPOOL_OK);
	assert_true(inject.number == 65536);
	assert_int_equal(inject_parse("slow:250", &inject), SECPOOL_OK);
	assert_true(inject.kind == INJECT_SLOW && inject.number == 250);
	assert_int_equal(inject_parse("flap:3", &inject), SECPOOL_OK);
	assert_true(inject.kind == INJECT_FLAP && inject.number == 3);
	assert_int_equal(inject_parse("stuck", &inject), SECPOOL_OK);
	assert_true(inject.kind == INJECT_STUCK);
	assert_int_equal(inject_parse("short", &inject), SECPOOL_OK);
	assert_true(inject.kind == INJECT_SHORT);
	assert_int_equal(inject_parse("poison", &inject), SECPOOL_OK);
	assert_true(inject.kind == INJECT_POISON);
	assert_int_equal(inject_parse("normal", &inject), SECPOOL_OK);
	assert_true(inject.kind == INJECT_NORMAL);
}

static void one_tenant_makes_nothing_suspect(void **state)
{
	const struct health_limits limits = {.tenants = 0};
	struct health health;

	(void)state;
	health_reset(&health);
	for (unsigned i = 0; i < 1000; i++)
		assert_false(health_report(&health, MSG_CAUSE_TAG, 1, &limits));
	assert_false(health_report(&health, MSG_CAUSE_FAULT, 2, &limits));
	assert_false(health_report(&health, MSG_CAUSE_FAULT, 0, &limits));
	assert_false(health_report(&health, 12345, 2, &limits));
	assert_true(health_report(&health, MSG_CAUSE_TAG, 2, &limits));
	assert_false(health_report(&health, MSG_CAUSE_TAG, 3, &limits)); /* once */
	health_reset(&health);
	assert_false(health_report(&health, MSG_CAUSE_TAG, 1, &limits));
	assert_true(health_report(&health, MSG_CAUSE_TAG, 0, &limits)); /* keymgrd's own finding */
	assert_false(health_report(&health, MSG_CAUSE_TAG, 0, &limits));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(made_once),
		TEST(mark_that_is_wrong_is_replaced),
		TEST(pull_and_plug),
		TEST(removed_by_others),
		TEST(cut_spares_others),
		TEST(mapped_access_fails_after_cut),
		TEST(links_and_errors),
		TEST(canary_and_behaviour),
		TEST(probe_tells),
		TEST(silence_is_a_pull),
		TEST(injected),
		TEST(injections_are_read),
		TEST(one_tenant_makes_nothing_suspect),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
