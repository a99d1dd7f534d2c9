/* SPDX-License-Identifier: Apache-2.0 */
/* The audit, attacked from outside: every byte changed, records removed, doubled, put in another order, cut off, signed by others, of another host; and its end taken over at a start. timeout: 240 */
#include "tests/unit/audit_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "enclave/secmem.h"
#include "lib/base/os.h"

static char anchor[AUDIT_ANCHOR_BYTES], folder[64];
static const uint8_t receipt_digest_[AUDIT_DIGEST_BYTES] = {0xaa, 0x55};

static int set_up(void **state)
{
	(void)state;
	make_signer(0);
	begin_log();
	snprintf(folder, sizeof folder, "/tmp/secpool-audit-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	free_signer();
	assert_int_equal(os_remove_tree(folder), SECPOOL_OK);
	return 0;
}

static void anchor_now(void)
{
	assert_int_equal(audit_anchor(&audit, anchor), SECPOOL_OK);
}

/* One record of each kind, with all that it may say. */
static void fill_log(void)
{
	for (int kind = 0; kind < AUDIT_KIND_COUNT; kind++) {
		const struct audit_entry entry = {.kind = (enum audit_kind)kind,
			.by_front = kind > AUDIT_REFUSED,
			.has_peer = true,
			.uid = 1000,
			.pid = 77,
			.tenant = "alpha",
			.device = "dev0",
			.detail = "a \"quoted\" \\ thing\n\x80",
			.session = 1,
			.region = UINT64_MAX,
			.epoch = 2,
			.generation = 3,
			.bytes = 4,
			.receipt = kind == AUDIT_RECEIPT ? 9 : 0,
			.error = kind == AUDIT_REFUSED ? SECPOOL_E_DENIED : SECPOOL_OK,
			.sha256 = kind == AUDIT_RECEIPT ? receipt_digest_ : NULL};

		keep(&entry);
	}
	anchor_now();
}

/* A start and a few records, the last one behind the anchor. */
static void fill_small(void)
{
	keep(&(struct audit_entry){.kind = AUDIT_PROVISIONED});
	keep(&(struct audit_entry){
		.kind = AUDIT_SESSION_OPENED, .tenant = "alpha", .session = 4, .has_peer = true});
	keep(&(struct audit_entry){.kind = AUDIT_KEY_CREATED, .region = 1, .epoch = 1});
	anchor_now();
	keep(&(struct audit_entry){.kind = AUDIT_KEY_DESTROYED, .region = 1, .generation = 1});
}

static enum secpool_error check(const char *text, size_t bytes)
{
	struct audit_report report;

	return check_log(text, bytes, anchor, NULL, NULL, &report);
}

static void expect_found(const char *text, size_t bytes, const char *what)
{
	if (check(text, bytes) != SECPOOL_E_INTEGRITY)
		fail_msg("not found: %s", what);
}

/* Where lines begin; the last is the end. */
static size_t lines_of(size_t at[LOG_LINES_MOST])
{
	size_t count = 0;

	at[0] = 0;
	for (size_t i = 0; i < log_.bytes; i++)
		if (log_.text[i] == '\n')
			at[++count] = i + 1;
	return count;
}

static void what_is_written_is_read(void **state)
{
	struct audit_verifier *verifier = NULL;
	struct audit_report report;
	struct audit_record r;
	size_t at[LOG_LINES_MOST], count;

	(void)state;
	fill_log();
	assert_int_equal(check_log(log_.text, log_.bytes, anchor, NULL, receipt_digest_, &report),
		SECPOOL_OK);
	assert_int_equal(report.records, AUDIT_KIND_COUNT);
	assert_int_equal(report.anchored, AUDIT_KIND_COUNT);
	assert_int_equal(report.starts, 3);
	assert_int_equal(report.missed, 0);
	assert_true(report.receipt_found);
	count = lines_of(at);
	assert_int_equal(count, AUDIT_KIND_COUNT);
	assert_int_equal(audit_verifier_new(NULL, NULL, &verifier), SECPOOL_OK);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(
			audit_verify_line(verifier, log_.text + at[i], at[i + 1] - at[i] - 1, &r),
			SECPOOL_OK);
		assert_int_equal(r.number, i + 1);
		assert_string_equal(r.tenant, "alpha");
		assert_string_equal(r.device, "dev0");
		assert_string_equal(r.detail, "a \"quoted\" \\ thing??");
		assert_true(r.region == UINT64_MAX && r.has_peer && r.uid == 1000 && r.pid == 77);
		assert_int_equal(r.by_front, i > AUDIT_REFUSED);
		if (i == AUDIT_REFUSED)
			assert_string_equal(r.error, "SECPOOL_E_DENIED");
	}
	audit_verifier_free(verifier);
}

static void every_changed_byte_is_found(void **state)
{
	size_t anchored;

	(void)state;
	fill_small();
	assert_int_equal(check(log_.text, log_.bytes), SECPOOL_OK);
	for (size_t i = 0; i < log_.bytes; i++) {
		char before = log_.text[i];

		log_.text[i] = (char)(before ^ (1 << (i % 7)));
		expect_found(log_.text, log_.bytes, "a changed byte");
		log_.text[i] = before;
	}
	anchored = strlen(anchor);
	for (size_t i = 0; i < anchored; i++) {
		char before = anchor[i];

		anchor[i] = (char)(before ^ (1 << (i % 7)));
		expect_found(log_.text, log_.bytes, "a changed byte of the anchor");
		anchor[i] = before;
	}
	for (size_t i = 0; i < anchored; i++) {
		char before = anchor[i];

		anchor[i] = '\0';
		expect_found(log_.text, log_.bytes, "a cut anchor");
		anchor[i] = before;
	}
	assert_int_equal(check(log_.text, log_.bytes), SECPOOL_OK);
}

static void records_are_all_there_in_order(void **state)
{
	static char other[LOG_BYTES_MOST];
	size_t at[LOG_LINES_MOST], count, used;

	(void)state;
	fill_log();
	count = lines_of(at);
	for (size_t i = 0; i < count; i++) {
		size_t bytes = at[i + 1] - at[i];

		/* without it */
		memcpy(other, log_.text, at[i]);
		memcpy(other + at[i], log_.text + at[i + 1], log_.bytes - at[i + 1]);
		expect_found(other, log_.bytes - bytes, "a removed record");
		/* twice */
		memcpy(other, log_.text, at[i + 1]);
		memcpy(other + at[i + 1], log_.text + at[i], log_.bytes - at[i]);
		expect_found(other, log_.bytes + bytes, "a doubled record");
		/* behind the next */
		if (i + 1 == count)
			continue;
		used = at[i];
		memcpy(other, log_.text, log_.bytes);
		memcpy(other + used, log_.text + at[i + 1], at[i + 2] - at[i + 1]);
		used += at[i + 2] - at[i + 1];
		memcpy(other + used, log_.text + at[i], bytes);
		expect_found(other, log_.bytes, "two records changed round");
	}
	assert_int_equal(check(log_.text, log_.bytes), SECPOOL_OK);
}

static void missing_ends_are_found(void **state)
{
	size_t at[LOG_LINES_MOST], count;
	struct audit_report report;

	(void)state;
	fill_small();
	count = lines_of(at);
	for (size_t bytes = 0; bytes < log_.bytes; bytes++) {
		/* only what is behind the anchor may be missing unseen, as a whole */
		if (bytes == at[count - 1])
			continue;
		expect_found(log_.text, bytes, "a missing end");
	}
	assert_int_equal(
		check_log(log_.text, at[count - 1], anchor, NULL, NULL, &report), SECPOOL_OK);
	assert_int_equal(report.records, report.anchored);
	assert_int_equal(check_log(log_.text, log_.bytes, anchor, NULL, NULL, &report), SECPOOL_OK);
	assert_int_equal(report.records - report.anchored, 1);
	/* a receipt that somebody holds finds also the loss of what is unanchored */
	assert_int_equal(check_log(log_.text, log_.bytes, anchor, NULL, receipt_digest_, &report),
		SECPOOL_E_INTEGRITY);
	assert_non_null(strstr(err_detail(), "receipt"));
}

static void others_signatures_are_refused(void **state)
{
	static struct log mine;
	char pem[512], mine_anchor[AUDIT_ANCHOR_BYTES];
	struct audit_report report;
	size_t at[LOG_LINES_MOST];

	(void)state;
	fill_small();
	mine = log_;
	memcpy(mine_anchor, anchor, sizeof anchor);
	assert_int_equal(
		quote_public_pem(signer.ak.area, signer.ak.bytes, pem, sizeof pem), SECPOOL_OK);
	assert_int_equal(check_log(mine.text, mine.bytes, anchor, pem, NULL, &report), SECPOOL_OK);
	/* another history of the same enclave: the anchor is not of it */
	begin_log();
	fill_small();
	assert_int_equal(check_log(log_.text, log_.bytes, mine_anchor, NULL, NULL, &report),
		SECPOOL_E_INTEGRITY);
	assert_non_null(strstr(err_detail(), "another audit of the same enclave"));
	/* another host's: whole by itself, but not with this one's key, nor its lines in this one's place */
	free_signer();
	make_signer(1);
	begin_log();
	fill_small();
	assert_int_equal(check_log(log_.text, log_.bytes, anchor, NULL, NULL, &report), SECPOOL_OK);
	assert_int_equal(
		check_log(log_.text, log_.bytes, anchor, pem, NULL, &report), SECPOOL_E_INTEGRITY);
	assert_non_null(strstr(err_detail(), "another host"));
	assert_int_equal(
		check_log(mine.text, mine.bytes, anchor, NULL, NULL, &report), SECPOOL_E_INTEGRITY);
	lines_of(at);
	memcpy(mine.text + mine.bytes, log_.text + at[1], log_.bytes - at[1]);
	assert_int_equal(check_log(mine.text, mine.bytes + log_.bytes - at[1], mine_anchor, NULL,
				 NULL, &report),
		SECPOOL_E_INTEGRITY);
	assert_non_null(strstr(err_detail(), "another enclave"));
	/* and a start of the other in the middle */
	memcpy(mine.text + mine.bytes, log_.text, at[1]);
	assert_int_equal(check_log(mine.text, mine.bytes + at[1], mine_anchor, NULL, NULL, &report),
		SECPOOL_E_INTEGRITY);
}

/* A certificate by nobody's TPM. */
static void key_must_be_certified(void **state)
{
	(void)state;
	signer.certificate.attest[signer.certificate.attest_bytes - 1] ^= 1;
	fill_small();
	expect_found(log_.text, log_.bytes, "a key that no TPM vouches for");
	assert_non_null(strstr(err_detail(), "vouch"));
}

static void what_is_not_kept_is_counted(void **state)
{
	const struct audit_entry refusal = {.kind = AUDIT_REFUSED, .detail = "no"};
	struct audit_report report;
	uint64_t count;

	(void)state;
	keep(&(struct audit_entry){.kind = AUDIT_UNSEALED});
	log_.full = true;
	assert_int_equal(audit_keep(&audit, &refusal), SECPOOL_E_NO_SPACE);
	assert_int_equal(audit.count, 1);
	audit_tell(&audit, &refusal);
	log_.full = false;
	for (int i = 0; i < AUDIT_REFUSALS + 10; i++)
		audit_tell(&audit, &refusal);
	count = audit.count;
	assert_in_range(count, 2, AUDIT_REFUSALS + 1);
	keep(&(struct audit_entry){.kind = AUDIT_STOPPING});
	anchor_now();
	assert_int_equal(check_log(log_.text, log_.bytes, anchor, NULL, NULL, &report), SECPOOL_OK);
	/* the one on the full log, and all that the limit held back */
	assert_int_equal(report.missed, 1 + AUDIT_REFUSALS + 10 - (count - 1));
	audit.sink = NULL;
	assert_int_equal(audit_keep(&audit, &refusal), SECPOOL_E_INTERNAL);
}

/* ---- the start ---- */

static void put_file(const char *name, const char *text, size_t bytes)
{
	char path[128];

	snprintf(path, sizeof path, "%s/%s", folder, name);
	assert_int_equal(os_write_file_durable(path, text, bytes, 0600), SECPOOL_OK);
}

static enum secpool_error resume(bool fresh)
{
	struct audit before, resumed;
	enum secpool_error error;

	audit_init(&resumed, &signer);
	before = resumed;
	error = audit_resume(&resumed, folder, fresh);
	if (error) {
		assert_int_equal(resumed.count, before.count);
	} else {
		assert_int_equal(resumed.count, audit.count);
		assert_int_equal(resumed.bytes, audit.bytes);
		assert_memory_equal(resumed.head, audit.head, sizeof audit.head);
	}
	return error;
}

static void end_is_taken_over(void **state)
{
	size_t at[LOG_LINES_MOST], count;

	(void)state;
	/* nothing there: only where nothing was */
	assert_int_equal(resume(false), SECPOOL_E_STORE);
	assert_int_equal(resume(true), SECPOOL_OK);
	assert_int_equal(resume(false), SECPOOL_OK); /* the anchor of no records */
	fill_small();
	put_file("audit.anchor", anchor, strlen(anchor));
	put_file("audit", log_.text, log_.bytes);
	assert_int_equal(resume(false), SECPOOL_OK);
	assert_int_equal(resume(true), SECPOOL_OK);
	/* what is behind the anchor may be missing: nobody can know */
	count = lines_of(at);
	put_file("audit", log_.text, at[count - 1]);
	audit_init(&audit, &signer);
	assert_int_equal(audit_resume(&audit, folder, false), SECPOOL_OK);
	assert_int_equal(audit.count, count - 1);
	for (size_t bytes = 0; bytes < at[count - 1]; bytes += bytes / 7 + 1) {
		put_file("audit", log_.text, bytes);
		assert_int_equal(resume(true), SECPOOL_E_STORE);
	}
}

static void damaged_end_is_refused(void **state)
{
	size_t at[LOG_LINES_MOST], count;
	char *last, path[128];

	(void)state;
	fill_small();
	count = lines_of(at);
	put_file("audit.anchor", anchor, strlen(anchor));
	/* the record at the anchor, and the one behind it */
	for (size_t i = at[count - 2]; i < log_.bytes; i += 11) {
		log_.text[i] ^= 1;
		put_file("audit", log_.text, log_.bytes);
		assert_int_equal(resume(true), SECPOOL_E_STORE);
		log_.text[i] ^= 1;
	}
	/* twice the last; a blank line; a torn one */
	last = log_.text + at[count - 1];
	memcpy(log_.text + log_.bytes, last, log_.bytes - at[count - 1]);
	put_file("audit", log_.text, 2 * log_.bytes - at[count - 1]);
	assert_int_equal(resume(true), SECPOOL_E_STORE);
	put_file("audit", log_.text, log_.bytes + 9);
	assert_int_equal(resume(true), SECPOOL_E_STORE);
	log_.text[log_.bytes] = '\n';
	put_file("audit", log_.text, log_.bytes + 1);
	assert_int_equal(resume(true), SECPOOL_E_STORE);
	put_file("audit", log_.text, log_.bytes);
	assert_int_equal(resume(false), SECPOOL_OK);
	/* the anchor */
	anchor[40] ^= 1;
	put_file("audit.anchor", anchor, strlen(anchor));
	assert_int_equal(resume(true), SECPOOL_E_STORE);
	anchor[40] ^= 1;
	put_file("audit.anchor", "", 0);
	assert_int_equal(resume(true), SECPOOL_E_STORE);
	snprintf(path, sizeof path, "%s/audit.anchor", folder);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(resume(true), SECPOOL_E_STORE);
	/* another signer's */
	put_file("audit.anchor", anchor, strlen(anchor));
	free_signer();
	make_signer(1);
	assert_int_equal(resume(true), SECPOOL_E_STORE);
	assert_non_null(strstr(err_detail(), "audit.anchor"));
}

/* What was sealed of the audit with the key store must be in it, at its place. */
static void sealed_end_is_compared(void **state)
{
	struct audit sealed;
	size_t at[LOG_LINES_MOST], count;

	(void)state;
	fill_small();
	sealed = audit;
	keep(&(struct audit_entry){.kind = AUDIT_STOPPING});
	anchor_now();
	put_file("audit.anchor", anchor, strlen(anchor));
	put_file("audit", log_.text, log_.bytes);
	/* before the anchor, at it, and none at all */
	assert_int_equal(
		audit_check_sealed(&audit, folder, sealed.head, sealed.count, sealed.bytes),
		SECPOOL_OK);
	assert_int_equal(audit_check_sealed(&audit, folder, audit.head, audit.count, audit.bytes),
		SECPOOL_OK);
	assert_int_equal(audit_check_sealed(&audit, folder, (uint8_t[32]){0}, 0, 0), SECPOOL_OK);
	/* another record in its place; not where it ended */
	assert_int_equal(audit_check_sealed(&audit, folder, audit.head, sealed.count, sealed.bytes),
		SECPOOL_E_STORE);
	assert_non_null(strstr(err_detail(), "is not the one that was sealed"));
	assert_int_equal(
		audit_check_sealed(&audit, folder, sealed.head, sealed.count, sealed.bytes - 1),
		SECPOOL_E_STORE);
	assert_int_equal(
		audit_check_sealed(&audit, folder, sealed.head, sealed.count, 0), SECPOOL_E_STORE);
	/* fewer than were sealed */
	count = lines_of(at);
	put_file("audit", log_.text, at[count - 1]);
	assert_int_equal(audit_check_sealed(&sealed, folder, audit.head, audit.count, audit.bytes),
		SECPOOL_E_STORE);
	assert_non_null(strstr(err_detail(), "rolled back"));
	assert_int_equal(audit_check_sealed(&audit, "/tmp/secpool-no-such-folder", audit.head,
				 audit.count, audit.bytes),
		SECPOOL_E_NOT_FOUND);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(what_is_written_is_read),
		TEST(every_changed_byte_is_found),
		TEST(records_are_all_there_in_order),
		TEST(missing_ends_are_found),
		TEST(others_signatures_are_refused),
		TEST(key_must_be_certified),
		TEST(what_is_not_kept_is_counted),
		TEST(end_is_taken_over),
		TEST(damaged_end_is_refused),
		TEST(sealed_end_is_compared),
	};

	if (secmem_init(SECMEM_ALLOW_LOCKED) != SECPOOL_OK)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
