/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of the audit a second: made, chained and signed; appended to the file without waiting for the disk; with it, as each record that an operation waits for alone; and with one wait for all that wait together; against bare writes
 * of as many bytes, each followed by fdatasync. The file is in a folder of its own below $TMPDIR (else /var/tmp): its disk is what is measured. Needs no daemons.
 */
#include "tests/bench/bench.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "enclave/audit.h"
#include "enclave/secmem.h"
#include "keymgr/auditlog.h"
#include "lib/base/os.h"

/* TOGETHER: as many as a go of turns may bring. */
enum { RECORDS = 64, TOGETHER = 64, CANDIDATES = 5, FOLDER_BYTES = 128 };

struct work {
	struct audit audit;
	struct auditlog *log; /* NULL: records go nowhere */
	bool wait;
	int bare; /* descriptor of the bare file */
	size_t line_bytes;
	bool failed;
};

static enum secpool_error count_line(void *arg, const char *line, bool wait)
{
	struct work *work = arg;

	(void)wait;
	work->line_bytes = strlen(line) + 1;
	return SECPOOL_OK;
}

static enum secpool_error pass_line(void *arg, const char *line, bool wait)
{
	struct work *work = arg;

	(void)wait;
	return auditlog_keep(work->log, line, work->wait);
}

static void run_records(void *arg, unsigned times)
{
	struct work *work = arg;
	const struct audit_entry entry = {.kind = AUDIT_KEY_CREATED,
		.has_peer = true,
		.uid = 1000,
		.pid = 4711,
		.tenant = "default",
		.session = 0x100000001,
		.region = 1234567,
		.epoch = 1};

	for (unsigned t = 0; t < times; t++)
		if (audit_keep(&work->audit, &entry) != SECPOOL_OK)
			work->failed = true;
}

/* As the records of a go of turns. */
static void run_together(void *arg, unsigned times)
{
	struct work *work = arg;
	const struct audit_entry entry = {
		.kind = AUDIT_KEY_CREATED, .tenant = "default", .region = 1234567, .epoch = 1};

	for (unsigned t = 1; t <= times; t++)
		if (audit_add(&work->audit, &entry) != SECPOOL_OK ||
			((t % TOGETHER == 0 || t == times) &&
				audit_sync(&work->audit) != SECPOOL_OK))
			work->failed = true;
}

static void run_bare(void *arg, unsigned times)
{
	static const char bytes[AUDIT_LINE_BYTES];
	struct work *work = arg;

	for (unsigned t = 0; t < times; t++)
		if (os_write_all(work->bare, bytes, work->line_bytes) != SECPOOL_OK ||
			fdatasync(work->bare) != 0)
			work->failed = true;
}

static void report(struct bench *bench, struct bench_candidate *candidates, const char *config)
{
	for (size_t i = 0; i < CANDIDATES; i++) {
		struct bench_candidate *c = &candidates[i];

		bench_report(bench, c->metric, RECORDS / bench_median(c), "records/s",
			RECORDS / c->seconds[BENCH_ROUNDS - 1], RECORDS / c->seconds[0], config);
	}
	bench_report(bench, "together_per_alone",
		bench_median(&candidates[2]) / bench_median(&candidates[4]), "x", 0, 0, config);
	bench_report(bench, "of_bare", bench_median(&candidates[3]) / bench_median(&candidates[2]),
		"ratio", 0, 0, config);
}

/* Each of the three ways has a chain of its own; the two files are apart. */
static int run(struct bench *bench, const struct receipt_signer *signer, const char *folder)
{
	static struct work made, loose, kept, bare, together;
	struct bench_candidate candidates[CANDIDATES] = {
		{.metric = "made", .run = run_records, .arg = &made},
		{.metric = "appended", .run = run_records, .arg = &loose},
		{.metric = "on_disk", .run = run_records, .arg = &kept},
		{.metric = "bare_write_and_sync", .run = run_bare, .arg = &bare},
		{.metric = "on_disk_together", .run = run_together, .arg = &together}};
	char path[FOLDER_BYTES + 16], config[64];
	struct auditlog *log = NULL;

	snprintf(path, sizeof path, "%s/bare", folder);
	bare.bare = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (bare.bare < 0 || auditlog_open(folder, &log) != SECPOOL_OK)
		return bench_failed(bench, "its files");
	audit_init(&made.audit, signer);
	loose.audit = kept.audit = together.audit = made.audit;
	loose.log = kept.log = log;
	kept.wait = true;
	made.audit.sink = count_line;
	loose.audit.sink = kept.audit.sink = pass_line;
	made.audit.sink_arg = &made;
	loose.audit.sink_arg = &loose;
	together.audit.sink = auditlog_keep;
	together.audit.sink_arg = log;
	kept.audit.sink_arg = &kept;
	run_records(&made, 1);
	bare.line_bytes = made.line_bytes;
	bench_compare(candidates, CANDIDATES, RECORDS);
	auditlog_close(log);
	os_close(&bare.bare);
	if (made.failed || loose.failed || kept.failed || bare.failed || together.failed)
		return bench_failed(bench, "an append");
	snprintf(config, sizeof config, "record_bytes=%zu", made.line_bytes);
	report(bench, candidates, config);
	return 0;
}

int bench_audit(struct bench *bench)
{
	const char *place = getenv("TMPDIR");
	struct receipt_signer signer = {.key = NULL};
	uint8_t key[RECEIPT_KEY_BYTES];
	char folder[FOLDER_BYTES];
	int status;

	snprintf(folder, sizeof folder, "%.100s/secpool-bench-XXXXXX", place ? place : "/var/tmp");
	if (secmem_init(SECMEM_ALLOW_LOCKED) != SECPOOL_OK || !mkdtemp(folder))
		return bench_failed(bench, "its folder, or secret memory");
	memset(key, 0x42, sizeof key); /* a key of nobody's */
	status = receipt_signer_init(&signer, key) == SECPOOL_OK ? run(bench, &signer, folder)
								 : bench_failed(bench, "its key");
	receipt_signer_done(&signer);
	if (os_remove_tree(folder) != SECPOOL_OK)
		return bench_failed(bench, "removing its folder");
	return status;
}
