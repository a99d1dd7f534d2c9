/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attacks on attestation through the daemons: the test takes hotplugd's place at a real key manager, with real TPMs, and cheats in each way of issue 5. Every time the device is refused, and `secpool events` says why in
 * words of its own. (A counter that goes back: integration/test_rollback.sh. A TPM that hangs or dies: integration/test_hotplug.c and test_swtpm.sh.)
 * timeout: 120
 */
#include "tests/security/attest_fixture.h"

#include <signal.h>
#include <tss2/tss2_mu.h>

#include "tests/support/support.h"

static struct rig_device other;
static struct authority maker, stranger;

/* What hotplugd is told first. */
static void take_limits(void)
{
	struct msg msg;

	SUPPORT_OK(
		sock_receive(rig.enclave.socket, &msg, NULL, clock_now_ns() + 10 * CLOCK_NS_PER_S));
	SUPPORT_CHECK(msg.type == MSG_DEVICE_LIMITS);
}

/* As hotplugd would. */
static void connect_as_hotplugd(void)
{
	os_close(&rig.enclave.socket);
	SUPPORT_OK(sock_connect_as(
		support_path("keymgr.sock"), MSG_ROLE_HOTPLUG, &rig.enclave.socket));
	take_limits();
}

static char events_text[1 << 20];

/* Events of this kind with these words; none while the key manager is being started anew. */
static unsigned count_events(const char *kind, const char *words)
{
	unsigned count = 0;
	char *line, *rest = events_text;

	if (support_cli(events_text, sizeof events_text, "events", NULL) != 0)
		return 0;
	while ((line = strsep(&rest, "\n")) != NULL)
		count += strstr(line, kind) && strstr(line, words);
	return count;
}

/* The device was refused with these words, and the events have them once more than before. */
static void expect_told(enum secpool_error got, const char *words, unsigned before)
{
	unsigned now = count_events("attestation-refused", words);

	if (got != SECPOOL_E_ATTESTATION || !strstr(err_detail(), words))
		support_fail("wanted '%s', got %s: %s", words, err_name(got), err_detail());
	if (now != before + 1)
		support_fail("%u events say '%s', before %u did", now, words, before);
}

/* A way of cheating with evidence that was honest. */
typedef void cheat(
	const struct msg_attest_challenge *challenge, struct msg_attest_evidence *evidence);

static struct msg_attest_evidence old; /* of an exchange that is over */

static void put_quote(
	struct tpm *tpm, uint32_t pcrs, const uint8_t *nonce, struct msg_attest_evidence *evidence)
{
	struct tpm_quote quote;

	SUPPORT_OK(tpm_quote(tpm, pcrs, nonce, QUOTE_NONCE_BYTES, &quote));
	memcpy(evidence->attest, quote.attest, sizeof evidence->attest);
	evidence->attest_bytes = (uint32_t)quote.attest_bytes;
	memcpy(evidence->signature, quote.signature, sizeof evidence->signature);
	evidence->signature_bytes = (uint32_t)quote.signature_bytes;
}

static void replay_quote(
	const struct msg_attest_challenge *challenge, struct msg_attest_evidence *evidence)
{
	(void)challenge;
	memcpy(evidence->attest, old.attest, sizeof evidence->attest);
	evidence->attest_bytes = old.attest_bytes;
	memcpy(evidence->signature, old.signature, sizeof evidence->signature);
	evidence->signature_bytes = old.signature_bytes;
}

static void use_other_nonce(
	const struct msg_attest_challenge *challenge, struct msg_attest_evidence *evidence)
{
	uint8_t nonce[QUOTE_NONCE_BYTES];

	memcpy(nonce, rig_nonce(challenge), sizeof nonce);
	nonce[0] ^= 1;
	put_quote(device.tpm, challenge->pcrs, nonce, evidence);
}

/* The right nonce, and what lies on other media. */
static void use_other_media(
	const struct msg_attest_challenge *challenge, struct msg_attest_evidence *evidence)
{
	struct msg_attest_challenge elsewhere = *challenge;

	os_random(elsewhere.media, sizeof elsewhere.media);
	put_quote(device.tpm, challenge->pcrs, rig_nonce(&elsewhere), evidence);
}

static void use_other_ak(
	const struct msg_attest_challenge *challenge, struct msg_attest_evidence *evidence)
{
	put_quote(other.tpm, challenge->pcrs, rig_nonce(challenge), evidence);
}

static void guess_secret(
	const struct msg_attest_challenge *challenge, struct msg_attest_evidence *evidence)
{
	(void)challenge;
	os_random(evidence->activated, QUOTE_SECRET_BYTES);
}

static void forge_attest(
	const struct msg_attest_challenge *challenge, struct msg_attest_evidence *evidence)
{
	(void)challenge;
	evidence->attest[evidence->attest_bytes - 1] ^= 1; /* in the digest of the PCRs */
}

static void quote_fewer_pcrs(
	const struct msg_attest_challenge *challenge, struct msg_attest_evidence *evidence)
{
	put_quote(device.tpm, 1, rig_nonce(challenge), evidence);
}

static void change_pcr_value(
	const struct msg_attest_challenge *challenge, struct msg_attest_evidence *evidence)
{
	(void)challenge;
	evidence->pcr_values[0] ^= 1;
}

static void log_other_capacity(
	const struct msg_attest_challenge *challenge, struct msg_attest_evidence *evidence)
{
	(void)challenge;
	rig_log(device.firmware, "device:d0:4194304:S-d0", "", evidence);
}

static void log_other_text(
	const struct msg_attest_challenge *challenge, struct msg_attest_evidence *evidence)
{
	(void)challenge;
	evidence->log[evidence->log_bytes - 1] ^= 1;
}

static void cut_log(
	const struct msg_attest_challenge *challenge, struct msg_attest_evidence *evidence)
{
	(void)challenge;
	evidence->log_bytes -= 5;
}

static void cheat_with_evidence(void)
{
	static const struct {
		cheat *cheat;
		const char *words;
	} cases[] = {
		{replay_quote, "does not answer this nonce"},
		{use_other_nonce, "does not answer this nonce"},
		{use_other_media, "does not answer this nonce"},
		{use_other_ak, "signature is not by this AK"},
		{guess_secret, "did not open the credential"},
		{forge_attest, "signature is not by this AK"},
		{quote_fewer_pcrs, "other PCRs than those that were asked for"},
		{change_pcr_value, "PCR values beside it are not those"},
		{log_other_capacity, "the measured log does not replay: it gives PCR 2"},
		{log_other_text, "text of the device is not what was measured"},
		{cut_log, "it ends in the middle of an event"},
	};
	struct msg_attest_challenge challenge;
	struct msg_attest_evidence evidence;

	SUPPORT_OK(rig_begin(&rig, &device, &challenge));
	rig_answer(&device, &challenge, &old);
	SUPPORT_OK(rig_judge(&rig, &old, NULL));
	unsigned before = count_events("attestation-refused", "no challenge is open");
	expect_told(rig_judge(&rig, &old, NULL), "no challenge is open", before);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		before = count_events("attestation-refused", cases[i].words);
		SUPPORT_OK(rig_begin(&rig, &device, &challenge));
		rig_answer(&device, &challenge, &evidence);
		cases[i].cheat(&challenge, &evidence);
		expect_told(rig_judge(&rig, &evidence, NULL), cases[i].words, before);
	}
	SUPPORT_OK(rig_attest(&rig, &device, NULL));
}

/* What the device says of itself: another's keys, keys that will not do, another's name and serial. */
static void cheat_with_claims(void)
{
	const struct msg_attest_begin good = device.claim;
	struct msg_attest_challenge challenge;
	struct msg_attest_evidence evidence = {.activated_bytes = QUOTE_SECRET_BYTES};
	TPM2B_PUBLIC area = {.size = 0};
	struct rig_device twin;
	size_t used = 0;

	/* an AK that is not in the EK's TPM */
	memcpy(device.claim.ak, other.claim.ak, sizeof device.claim.ak);
	device.claim.ak_bytes = other.claim.ak_bytes;
	SUPPORT_OK(rig_begin(&rig, &device, &challenge));
	MSG_SET(evidence.id, "d0");
	unsigned before = count_events("attestation-refused", "did not open the credential");
	expect_told(rig_judge(&rig, &evidence, NULL), "did not open the credential", before);
	/* one that signs anything */
	SUPPORT_CHECK(Tss2_MU_TPM2B_PUBLIC_Unmarshal(good.ak, good.ak_bytes, &used, &area) == 0);
	area.publicArea.objectAttributes &= ~(TPMA_OBJECT)TPMA_OBJECT_RESTRICTED;
	used = 0;
	SUPPORT_CHECK(Tss2_MU_TPM2B_PUBLIC_Marshal(
			      &area, device.claim.ak, sizeof device.claim.ak, &used) == 0);
	device.claim.ak_bytes = (uint32_t)used;
	expect_told(rig_begin(&rig, &device, &challenge), "it is not restricted", 0);
	device.claim = good;
	MSG_SET(device.claim.firmware, "secpool-emulated-0.9");
	expect_told(rig_begin(&rig, &device, &challenge), "the policy does not list it", 0);
	device.claim = good;
	MSG_SET(device.claim.id, "d9");
	expect_told(rig_attest(&rig, &device, NULL), "its measured log is that of device 'd0'", 0);
	device.claim = good;
	device.claim.bytes *= 2;
	expect_told(rig_attest(&rig, &device, NULL), "but its measured log says 1048576", 0);
	device.claim = good;
	SUPPORT_OK(rig_attest(&rig, &device, NULL));
	rig_device_init_serial(&twin, "d2", "S-d0");
	expect_told(rig_attest(&rig, &twin, NULL), "its serial 'S-d0' is that of device d0", 0);
	rig_device_done(&twin);
	expect_told(
		rig_attest(&rig, &other, NULL), "not the one this id was first accepted with", 0);
	/* it changes after it was accepted */
	SUPPORT_OK(tpm_extend(device.tpm, 0, "patched at run time"));
	expect_told(rig_attest(&rig, &device, NULL),
		"the measured log does not replay: it gives PCR 0", 0);
}

static bool is_reloaded(void *arg)
{
	return count_events("policy-reloaded", arg) == 1;
}

/* The policy now has a CA: its certificates, expired or foreign ones, and none. */
static void cheat_with_certificates(void)
{
	char pem[8192] = "", ca[PATH_MAX], *text = NULL, *more = NULL;
	struct rig_device certified;
	size_t bytes = 0;
	int length;

	authority_init(&maker, "maker", NULL, 36500);
	authority_init(&stranger, "stranger", NULL, 36500);
	authority_pem(&maker, pem);
	snprintf(ca, sizeof ca, "%s", support_path("maker.pem"));
	SUPPORT_OK(os_write_file_durable(ca, pem, strlen(pem), 0600));
	SUPPORT_OK(os_read_file(support_path("policy.yaml"), 1 << 20, &text, &bytes));
	length = asprintf(&more, "%s  ek_ca: [%s]\n", text, ca);
	SUPPORT_CHECK(length > 0 && strstr(text, "devices:") != NULL);
	SUPPORT_OK(os_write_file_durable(support_path("policy.yaml"), more, (size_t)length, 0600));
	SUPPORT_CHECK(kill(support_daemon("keymgrd"), SIGHUP) == 0);
	SUPPORT_CHECK(support_wait(is_reloaded, (void *)"", 15000));
	free(text);
	free(more);
	for (unsigned i = 0; i < 500 && sock_connect_as(support_path("keymgr.sock"),
						MSG_ROLE_HOTPLUG, &rig.enclave.socket);
		i++)
		clock_sleep_ns(20 * CLOCK_NS_PER_MS);
	take_limits();
	rig_device_init(&certified, "d5", RIG_FIRMWARE, RIG_FIRMWARE);
	expect_told(rig_attest(&rig, &certified, NULL),
		"EK certificate is refused: the TPM has none", 0);
	certify(&certified, &stranger, -1, 1);
	expect_told(rig_attest(&rig, &certified, NULL), "no CA that the policy lists", 0);
	certify(&certified, &maker, -9, -1);
	expect_told(rig_attest(&rig, &certified, NULL), "it has expired", 0);
	certify(&certified, &maker, -1, 1);
	SUPPORT_OK(rig_attest(&rig, &certified, NULL));
	rig_device_done(&certified);
	authority_done(&maker);
	authority_done(&stranger);
}

int main(void)
{
	support_up(1, "16M", NULL);
	rig.enclave.socket = -1;
	/* its place is taken */
	SUPPORT_CHECK(kill(support_daemon("hotplugd"), SIGKILL) == 0);
	connect_as_hotplugd();
	rig_device_init(&device, "d0", RIG_FIRMWARE, RIG_FIRMWARE);
	rig_device_init(&other, "d0", RIG_FIRMWARE, RIG_FIRMWARE);
	cheat_with_evidence();
	cheat_with_claims();
	os_close(&rig.enclave.socket);
	cheat_with_certificates();
	os_close(&rig.enclave.socket);
	rig_device_done(&other);
	rig_device_done(&device);
	support_down();
	return 0;
}
