/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/quote_verify.h"

#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <stdbool.h>
#include <string.h>
#include <tss2/tss2_mu.h>

#include "enclave/quote_key.h"

enum { DIGEST_BYTES = 32, NONCE_MOST = 64, SIGNATURE_DER_MOST = 80, PCRS_MOST = 24 };
/* TPM_RH_ENDORSEMENT, big endian: the name of the hierarchy (TPM 2.0 part 1, section 16) */
static const uint8_t ENDORSEMENT_NAME[4] = {0x40, 0x00, 0x00, 0x0b};

static enum secpool_error refuse(const char *reason)
{
	return err_set(SECPOOL_E_ATTESTATION, "the quote is refused: %s", reason);
}

/* TPMT_SIGNATURE as OpenSSL wants it; 0: it is not an ECDSA signature with SHA-256. */
static int signature_to_der(const uint8_t *signature, size_t bytes, uint8_t *der)
{
	TPMT_SIGNATURE parsed = {.sigAlg = 0};
	const TPMS_SIGNATURE_ECDSA *ecdsa = &parsed.signature.ecdsa;
	BIGNUM *r = NULL, *s = NULL;
	ECDSA_SIG *sig = NULL;
	size_t used = 0;
	int count = 0;

	if (bytes > TPM_SIGNATURE_BYTES ||
		Tss2_MU_TPMT_SIGNATURE_Unmarshal(signature, bytes, &used, &parsed) ||
		used != bytes || parsed.sigAlg != TPM2_ALG_ECDSA ||
		ecdsa->hash != TPM2_ALG_SHA256 || ecdsa->signatureR.size > DIGEST_BYTES ||
		ecdsa->signatureS.size > DIGEST_BYTES)
		return 0;
	r = BN_bin2bn(ecdsa->signatureR.buffer, ecdsa->signatureR.size, NULL);
	s = BN_bin2bn(ecdsa->signatureS.buffer, ecdsa->signatureS.size, NULL);
	sig = ECDSA_SIG_new();
	if (r && s && sig && ECDSA_SIG_set0(sig, r, s) == 1) {
		r = s = NULL; /* the signature owns them now */
		count = i2d_ECDSA_SIG(sig, NULL);
		count = count > 0 && count <= SIGNATURE_DER_MOST ? i2d_ECDSA_SIG(sig, &der) : 0;
	}
	ECDSA_SIG_free(sig);
	BN_free(r);
	BN_free(s);
	return count > 0 ? count : 0;
}

static enum secpool_error check_signature(EVP_PKEY *ak, const uint8_t *attest, size_t attest_bytes,
	const uint8_t *signature, size_t signature_bytes)
{
	uint8_t der[SIGNATURE_DER_MOST];
	int der_bytes = signature_to_der(signature, signature_bytes, der);
	EVP_MD_CTX *context;
	bool good;

	if (der_bytes == 0)
		return refuse("its signature is not a TPMT_SIGNATURE of ECDSA with SHA-256");
	context = EVP_MD_CTX_new();
	good = context &&
	       EVP_DigestVerifyInit_ex(context, NULL, "SHA256", NULL, NULL, ak, NULL) == 1 &&
	       EVP_DigestVerify(context, der, (size_t)der_bytes, attest, attest_bytes) == 1;
	EVP_MD_CTX_free(context);
	return good ? SECPOOL_OK : refuse("its signature is not by this AK over these bytes");
}

static enum secpool_error parse_attest(const uint8_t *attest, size_t bytes, TPMS_ATTEST *ret_attest)
{
	size_t used = 0;

	memset(ret_attest, 0, sizeof *ret_attest);
	if (Tss2_MU_TPMS_ATTEST_Unmarshal(attest, bytes, &used, ret_attest) || used != bytes)
		return refuse("it is not a TPMS_ATTEST");
	if (ret_attest->magic != TPM2_GENERATED_VALUE)
		return refuse("it was not made by a TPM (magic number)");
	if (ret_attest->type != TPM2_ST_ATTEST_QUOTE)
		return refuse("it attests something else than PCRs");
	return SECPOOL_OK;
}

/*
 * QN(EK) = H(QN of the hierarchy || name of the EK), QN(AK) = H(QN(EK) || name of the AK): part
 * 1, section 16.
 */
static bool qualify(const uint8_t *parent, size_t parent_bytes,
	const uint8_t name[QUOTE_NAME_BYTES], uint8_t ret_name[QUOTE_NAME_BYTES])
{
	uint8_t both[2 * QUOTE_NAME_BYTES];

	memcpy(both, parent, parent_bytes);
	memcpy(both + parent_bytes, name, QUOTE_NAME_BYTES);
	ret_name[0] = TPM2_ALG_SHA256 >> 8;
	ret_name[1] = TPM2_ALG_SHA256 & 0xff;
	return EVP_Digest(both, parent_bytes + QUOTE_NAME_BYTES, ret_name + 2, NULL, EVP_sha256(),
		       NULL) == 1;
}

static enum secpool_error check_signer(
	const struct quote_key *ek, const struct quote_key *ak, const TPM2B_NAME *signer)
{
	uint8_t ek_name[QUOTE_NAME_BYTES], ak_name[QUOTE_NAME_BYTES];

	if (!qualify(ENDORSEMENT_NAME, sizeof ENDORSEMENT_NAME, ek->name, ek_name) ||
		!qualify(ek_name, sizeof ek_name, ak->name, ak_name))
		return refuse("the signer's name could not be computed");
	if (signer->size != QUOTE_NAME_BYTES ||
		CRYPTO_memcmp(signer->name, ak_name, QUOTE_NAME_BYTES) != 0)
		return refuse("its signer is not this AK under this EK");
	return SECPOOL_OK;
}

/* Exactly these PCRs of the SHA-256 bank, no more, no less. */
static bool selects(const TPML_PCR_SELECTION *selection, uint32_t pcrs)
{
	const TPMS_PCR_SELECTION *bank = &selection->pcrSelections[0];
	uint32_t found = 0;

	if (selection->count != 1 || bank->hash != TPM2_ALG_SHA256 ||
		bank->sizeofSelect > sizeof bank->pcrSelect)
		return false;
	for (unsigned i = 0; i < bank->sizeofSelect; i++)
		found |= (uint32_t)bank->pcrSelect[i] << (8 * i);
	return found == pcrs;
}

static enum secpool_error check_pcrs(
	const TPMS_QUOTE_INFO *quoted, uint32_t pcrs, const uint8_t *pcr_values, size_t pcr_count)
{
	uint8_t digest[DIGEST_BYTES];

	if (!selects(&quoted->pcrSelect, pcrs))
		return refuse("it is about other PCRs than those that were asked for");
	if (pcr_count != (size_t)__builtin_popcount(pcrs))
		return refuse("the number of PCR values beside it is wrong");
	if (EVP_Digest(pcr_values, pcr_count * TPM_PCR_BYTES, digest, NULL, EVP_sha256(), NULL) !=
		1)
		return refuse("the digest of the PCR values could not be computed");
	if (quoted->pcrDigest.size != DIGEST_BYTES ||
		CRYPTO_memcmp(quoted->pcrDigest.buffer, digest, DIGEST_BYTES) != 0)
		return refuse("the PCR values beside it are not those that it was made over");
	return SECPOOL_OK;
}

static enum secpool_error check_nonce(
	const TPM2B_DATA *found, const uint8_t *nonce, size_t nonce_bytes)
{
	if (found->size != nonce_bytes || CRYPTO_memcmp(found->buffer, nonce, nonce_bytes) != 0)
		return refuse("it does not answer this nonce: it is old, or for somebody else");
	return SECPOOL_OK;
}

enum secpool_error quote_verify(const uint8_t *ek, size_t ek_bytes, const uint8_t *ak,
	size_t ak_bytes, const uint8_t *attest, size_t attest_bytes, const uint8_t *signature,
	size_t signature_bytes, const uint8_t *nonce, size_t nonce_bytes, uint32_t pcrs,
	const uint8_t *pcr_values, size_t pcr_count, struct quote_facts *ret_facts)
{
	struct quote_key ek_key = {.pkey = NULL}, ak_key = {.pkey = NULL};
	TPMS_ATTEST parsed;
	enum secpool_error error;

	if (nonce_bytes == 0 || nonce_bytes > NONCE_MOST)
		return refuse(
			"a quote without a nonce, or with one of over 64 bytes, proves nothing");
	if (pcrs == 0 || pcrs >> PCRS_MOST != 0)
		return refuse("the PCR mask names no PCR, or one that does not exist");
	if (attest_bytes > TPM_ATTEST_BYTES)
		return refuse("it is too long");
	error = quote_key_init(QUOTE_KEY_EK, ek, ek_bytes, &ek_key);
	if (!error)
		error = quote_key_init(QUOTE_KEY_AK, ak, ak_bytes, &ak_key);
	/* the signature first: what follows parses only bytes that a TPM signed */
	if (!error)
		error = check_signature(
			ak_key.pkey, attest, attest_bytes, signature, signature_bytes);
	if (!error)
		error = parse_attest(attest, attest_bytes, &parsed);
	if (!error)
		error = check_signer(&ek_key, &ak_key, &parsed.qualifiedSigner);
	if (!error)
		error = check_nonce(&parsed.extraData, nonce, nonce_bytes);
	if (!error)
		error = check_pcrs(&parsed.attested.quote, pcrs, pcr_values, pcr_count);
	if (!error) {
		*ret_facts = (struct quote_facts){.reset_count = parsed.clockInfo.resetCount,
			.restart_count = parsed.clockInfo.restartCount,
			.clock_ms = parsed.clockInfo.clock};
		memcpy(ret_facts->pcr_digest, parsed.attested.quote.pcrDigest.buffer, DIGEST_BYTES);
	}
	quote_key_done(&ak_key);
	quote_key_done(&ek_key);
	return error;
}
