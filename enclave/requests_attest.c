/* SPDX-License-Identifier: Apache-2.0 */
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#include "enclave/quote_verify.h"
#include "enclave/requests.h"
#include "enclave/secmem.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/os.h"

/* Bytes of a name that are shown. */
enum { SHOWN_BYTES = 4 };

_Static_assert(sizeof((struct msg_attest_verdict *)0)->ek_name == QUOTE_NAME_BYTES, "EK name");
_Static_assert((int)TPM_NONCE_BYTES == (int)QUOTE_NONCE_BYTES, "nonces");
_Static_assert(TPM_PCRS_MOST *TPM_PCR_BYTES == sizeof((struct msg_attest_evidence *)0)->pcr_values,
	"PCR values");

/* What the policy says alone: may this id be used with this EK and firmware? Nothing was proved yet. */
static enum secpool_error may_use(const struct requests *requests,
	const struct verdicts_challenge *challenge, bool *ret_listed)
{
	const struct msg_attest_begin *claim = &challenge->claim;
	bool first_use = true;
	enum secpool_error error;

	if (claim->reach[0] && !policy_settings(requests->policy)->allow_device_dma)
		return err_set(SECPOOL_E_ATTESTATION,
			"device %s could reach this host's memory: %s (policy allow.device_dma)",
			claim->id, claim->reach);
	error = policy_may_use_device(
		requests->policy, claim->id, challenge->ek_name, claim->firmware, &first_use);
	/* an EK that the policy itself names needs nobody else's word */
	if (!error && first_use && policy_ek_ca(requests->policy, 0) && !challenge->certified)
		error = err_set(SECPOOL_E_ATTESTATION, "device %s: %.180s", claim->id,
			challenge->uncertified);
	*ret_listed = !first_use;
	return error;
}

/* The first bytes of a TPM name, behind the algorithm's number, for people. */
static void show_name(const uint8_t name[QUOTE_NAME_BYTES], char text[2 * SHOWN_BYTES + 1])
{
	for (size_t i = 0; i < SHOWN_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", name[2 + i]);
}

/* Memory and the policy together, of an EK that was proved: is it this id's? */
static enum secpool_error is_enrolled(
	const struct requests *requests, const struct verdicts_proof *proof)
{
	enum secpool_error error = verdicts_may_claim(&requests->verdicts, proof);
	char shown[2 * SHOWN_BYTES + 1];

	if (error || proof->listed || !policy_settings(requests->policy)->enrol_by_operator ||
		verdicts_is_known(&requests->verdicts, proof->id, proof->ek_name))
		return error;
	show_name(proof->ek_name, shown);
	return err_set(SECPOOL_E_ATTESTATION,
		"device %s is not enrolled (EK %s...): 'secpool device enrol %s' takes it in",
		proof->id, shown, proof->id);
}

/* Has the verifier make the credential, into the answer; fills in the challenge. */
static enum secpool_error make_challenge(struct requests *requests,
	struct verdicts_challenge *challenge, struct msg_attest_challenge *out)
{
	static struct msg_verify_credential credential;
	struct msg_verify_begin ask = {0};
	enum secpool_error error;

	os_random(challenge->nonce, sizeof challenge->nonce);
	os_random(challenge->media, sizeof challenge->media);
	os_random(challenge->secret, sizeof challenge->secret);
	ask.ek_bytes = challenge->claim.ek_bytes;
	memcpy(ask.ek, challenge->claim.ek, sizeof ask.ek);
	ask.ak_bytes = challenge->claim.ak_bytes;
	memcpy(ask.ak, challenge->claim.ak, sizeof ask.ak);
	memcpy(ask.secret, challenge->secret, sizeof ask.secret);
	ask.certificate_bytes = challenge->claim.certificate_bytes;
	memcpy(ask.certificate, challenge->claim.certificate, sizeof ask.certificate);
	error = verifier_make_credential(&requests->verifier, &ask, &credential);
	secmem_wipe(&ask, sizeof ask);
	if (error)
		return error;
	memcpy(challenge->ek_name, credential.ek_name, sizeof challenge->ek_name);
	challenge->certified = credential.certified == 1;
	MSG_SET(challenge->uncertified, credential.uncertified);
	MSG_SET(out->id, challenge->claim.id);
	memcpy(out->nonce, challenge->nonce, sizeof out->nonce);
	memcpy(out->media, challenge->media, sizeof out->media);
	out->pcrs = policy_settings(requests->policy)->device_pcrs;
	out->credential_bytes = credential.credential_bytes;
	memcpy(out->credential, credential.credential, sizeof out->credential);
	out->secret_bytes = credential.secret_bytes;
	memcpy(out->secret, credential.secret, sizeof out->secret);
	return SECPOOL_OK;
}

enum secpool_error requests_attest_begin(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	struct verdicts_challenge challenge = {.claim = request->u.attest_begin};
	const struct msg_attest_begin *claim = &challenge.claim;
	enum secpool_error error = SECPOOL_OK;
	bool listed = false;

	(void)extra;
	if (claim->id[0] == '\0' || claim->firmware[0] == '\0' || claim->serial[0] == '\0' ||
		claim->ek_bytes > sizeof claim->ek || claim->ak_bytes > sizeof claim->ak ||
		claim->certificate_bytes > sizeof claim->certificate)
		return err_set(SECPOOL_E_ATTESTATION,
			"device '%s' names no id, firmware or serial, or a key too long",
			claim->id);
	error = make_challenge(requests, &challenge, &answer->u.attest_challenge);
	/* known already that it will be refused: then say so now. It is asked again when the EK is proved. */
	if (!error)
		error = may_use(requests, &challenge, &listed);
	if (!error) {
		challenge.made_ns = clock_now_ns();
		verdicts_put_challenge(&requests->verdicts, &challenge);
		answer->type = MSG_ATTEST_CHALLENGE;
	} else {
		verdicts_void(&requests->verdicts, claim->id, err_detail());
	}
	secmem_wipe(&challenge, sizeof challenge);
	return error;
}

/* The log, which replayed to what the TPM quoted, says who the device is: elsewhere it must say the same. */
static enum secpool_error check_facts(
	const struct msg_attest_begin *claim, const struct msg_verify_facts *facts)
{
	if (strcmp(facts->id, claim->id) != 0)
		return err_set(SECPOOL_E_ATTESTATION,
			"device %s: its measured log is that of device '%s'", claim->id, facts->id);
	if (strcmp(facts->serial, claim->serial) != 0)
		return err_set(SECPOOL_E_ATTESTATION,
			"device %s: its serial is '%s', but its measured log says '%s'", claim->id,
			claim->serial, facts->serial);
	if (strcmp(facts->firmware, claim->firmware) != 0)
		return err_set(SECPOOL_E_ATTESTATION,
			"device %s: its firmware is '%s', but its measured log says '%s'",
			claim->id, claim->firmware, facts->firmware);
	if (facts->bytes != claim->bytes)
		return err_set(SECPOOL_E_ATTESTATION,
			"device %s: it has %llu bytes, but its measured log says %llu", claim->id,
			(unsigned long long)claim->bytes, (unsigned long long)facts->bytes);
	return SECPOOL_OK;
}

/* The values that the TPM quoted against the policy's. values: one for each bit of pcrs, lowest first. */
static enum secpool_error check_references(
	const struct policy *policy, const char *id, uint32_t pcrs, const uint8_t *values)
{
	enum secpool_error error = SECPOOL_OK;

	for (unsigned pcr = 0; pcrs >> pcr != 0 && !error; pcr++) {
		if (!(pcrs & 1u << pcr))
			continue;
		error = policy_may_measure(policy, id, pcr, values);
		values += TPM_PCR_BYTES;
	}
	return error;
}

/* Everything that evidence must show, in the order: this TPM, this quote, these measurements, this policy. */
static enum secpool_error check_evidence(struct requests *requests,
	const struct verdicts_challenge *challenge, const struct msg_attest_evidence *in,
	uint64_t *ret_resets)
{
	static struct msg_verify_evidence ask;
	const struct msg_attest_begin *claim = &challenge->claim;
	uint32_t pcrs = policy_settings(requests->policy)->device_pcrs;
	struct msg_verify_facts facts = {0};
	enum secpool_error error;

	if (in->activated_bytes != QUOTE_SECRET_BYTES ||
		CRYPTO_memcmp(in->activated, challenge->secret, QUOTE_SECRET_BYTES) != 0)
		return err_set(SECPOOL_E_ATTESTATION,
			"device %s: its TPM did not open the credential: it does not hold the EK "
			"and AK "
			"that it names",
			claim->id);
	if (in->attest_bytes > sizeof in->attest || in->signature_bytes > sizeof in->signature ||
		in->log_bytes > sizeof in->log ||
		in->pcr_count != (uint32_t)__builtin_popcount(pcrs))
		return err_set(SECPOOL_E_ATTESTATION, "device %s: its evidence has wrong lengths",
			claim->id);
	memset(&ask, 0, sizeof ask);
	ask.ek_bytes = claim->ek_bytes;
	memcpy(ask.ek, claim->ek, sizeof ask.ek);
	ask.ak_bytes = claim->ak_bytes;
	memcpy(ask.ak, claim->ak, sizeof ask.ak);
	ask.attest_bytes = in->attest_bytes;
	memcpy(ask.attest, in->attest, sizeof ask.attest);
	ask.signature_bytes = in->signature_bytes;
	memcpy(ask.signature, in->signature, sizeof ask.signature);
	error = tpm_bind_nonce(challenge->nonce, challenge->media, ask.nonce);
	if (error)
		return error;
	ask.pcrs = pcrs;
	ask.pcr_count = in->pcr_count;
	memcpy(ask.pcr_values, in->pcr_values, sizeof ask.pcr_values);
	ask.log_bytes = in->log_bytes;
	memcpy(ask.log, in->log, sizeof ask.log);
	error = verifier_check_quote(&requests->verifier, &ask, &facts);
	if (!error)
		error = check_facts(claim, &facts);
	if (!error)
		error = check_references(requests->policy, claim->id, pcrs, in->pcr_values);
	*ret_resets = verdicts_resets(facts.reset_count, facts.restart_count);
	return error;
}

/* A device that would do but for who it is may be taken in by an operator. */
static enum secpool_error judge(
	struct requests *requests, const struct verdicts_proof *proof, uint64_t expires_ns)
{
	enum secpool_error error = is_enrolled(requests, proof);

	if (!error)
		error = verdicts_accept(&requests->verdicts, proof, expires_ns);
	if (error == SECPOOL_E_ATTESTATION && !proof->listed)
		verdicts_offer(&requests->verdicts, proof);
	return error;
}

/* What was found out about the device, into the audit: a device that is not there is not used. */
static enum secpool_error keep_attested(
	struct requests *requests, const struct verdicts_challenge *challenge)
{
	const struct msg_attest_begin *claim = &challenge->claim;
	struct audit_entry entry = {
		.kind = AUDIT_ATTESTED, .device = claim->id, .bytes = claim->bytes};
	char detail[3 * MSG_NAME_BYTES], shown[2 * SHOWN_BYTES + 1];

	show_name(challenge->ek_name, shown);
	snprintf(detail, sizeof detail, "EK %s..., serial %s, firmware %s", shown, claim->serial,
		claim->firmware);
	entry.detail = detail;
	return audit_keep(&requests->audit, &entry);
}

static void tell_not_attested(struct requests *requests, const char *id, enum secpool_error error)
{
	const struct audit_entry entry = {
		.kind = AUDIT_NOT_ATTESTED, .device = id, .error = error, .detail = err_detail()};

	audit_tell(&requests->audit, &entry);
}

enum secpool_error requests_attest_evidence(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	const struct msg_attest_evidence *in = &request->u.attest_evidence;
	struct msg_attest_verdict *out = &answer->u.attest_verdict;
	static struct verdicts_challenge challenge;
	struct verdicts_proof proof = {.id = in->id};
	uint64_t now = clock_now_ns();
	uint64_t expires = now + policy_settings(requests->policy)->max_age_ns;
	enum secpool_error error, kept = SECPOOL_OK;
	bool taken;

	(void)extra;
	error = verdicts_take_challenge(&requests->verdicts, in->id, now, &challenge);
	taken = !error;
	if (!error)
		error = check_evidence(requests, &challenge, in, &proof.resets);
	if (!error) {
		proof.ek_name = challenge.ek_name;
		proof.serial = challenge.claim.serial;
		memcpy(out->ek_name, challenge.ek_name, sizeof out->ek_name);
		MSG_SET(out->serial, proof.serial);
		error = may_use(requests, &challenge, &proof.listed);
	}
	if (!error)
		error = judge(requests, &proof, expires);
	if (!error)
		kept = keep_attested(requests, &challenge);
	else
		tell_not_attested(requests, in->id, error);
	/* evidence that nobody asked for says nothing about the device; any other refusal ends what was good before */
	if ((error && taken) || kept)
		verdicts_void(&requests->verdicts, in->id, err_detail());
	secmem_wipe(&challenge, sizeof challenge);
	/* nothing against the device: it proves itself again */
	if (kept)
		return kept;
	answer->type = MSG_ATTEST_VERDICT;
	MSG_SET(out->id, in->id);
	out->error = (uint32_t)error;
	MSG_SET(out->reason, error ? err_detail() : "");
	out->expires_ns = error ? 0 : expires;
	out->resets = error ? 0 : proof.resets;
	return SECPOOL_OK;
}

enum secpool_error requests_device_check(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	const char *id = request->u.enc_device_check.id;
	struct msg_attest_verdict *out = &answer->u.attest_verdict;
	struct verdicts_device device = {.known = false};
	enum secpool_error error;

	(void)extra;
	error = verdicts_fresh(&requests->verdicts, id, clock_now_ns(), &device);
	answer->type = MSG_ATTEST_VERDICT;
	MSG_SET(out->id, id);
	out->error = (uint32_t)error;
	MSG_SET(out->reason, error ? err_detail() : "");
	out->expires_ns = error ? 0 : device.expires_ns;
	if (!error)
		memcpy(out->ek_name, device.ek_name, sizeof out->ek_name);
	return SECPOOL_OK;
}

enum secpool_error requests_device_void(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	const struct audit_entry entry = {
		.kind = AUDIT_DEVICE_VOID, .device = request->u.enc_device_void.id};

	(void)extra;
	(void)answer;
	verdicts_void(&requests->verdicts, entry.device, "it was lost or refused, attest it again");
	audit_tell(&requests->audit, &entry);
	return SECPOOL_OK;
}

enum secpool_error requests_device_known(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	const struct msg_enc_device_known *in = &request->u.enc_device_known;

	(void)extra;
	(void)answer;
	return verdicts_know(&requests->verdicts, in->id, in->ek_name, in->serial, in->resets);
}

enum secpool_error requests_device_enrol(struct requests *requests, const struct msg *request,
	struct sock_extra *extra, struct msg *answer)
{
	const char *id = request->u.enc_device_enrol.id;
	struct msg_attest_verdict *out = &answer->u.attest_verdict;
	struct verdicts_device device = {.known = false};
	const struct audit_entry entry = {.kind = AUDIT_DEVICE_ENROLLED, .device = id};
	static struct verdicts before;
	enum secpool_error error;

	(void)extra;
	before = requests->verdicts;
	error = verdicts_enrol(&requests->verdicts, id, &device);
	if (!error) {
		error = audit_keep(&requests->audit, &entry);
		if (error)
			requests->verdicts = before;
	}
	secmem_wipe(&before, sizeof before); /* challenges' secrets */
	if (error)
		return error;
	answer->type = MSG_ATTEST_VERDICT;
	MSG_SET(out->id, id);
	MSG_SET(out->serial, device.serial);
	memcpy(out->ek_name, device.ek_name, sizeof out->ek_name);
	return SECPOOL_OK;
}
