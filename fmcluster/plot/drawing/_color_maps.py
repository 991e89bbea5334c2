"""Color maps: seaborn's, without loading seaborn, which loads scipy's statistics and takes a second to.

Tables of 256 colors each, to the eight bits that a picture has.
"""

# The tables are seaborn's (0.13.2, seaborn/cm.py), under the BSD 3-Clause License:
#
# Copyright (c) 2012-2023, Michael L. Waskom
# All rights reserved.
#
# Redistribution and use in source and binary forms, with or without
# modification, are permitted provided that the following conditions are met:
#
# * Redistributions of source code must retain the above copyright notice, this
#   list of conditions and the following disclaimer.
#
# * Redistributions in binary form must reproduce the above copyright notice,
#   this list of conditions and the following disclaimer in the documentation
#   and/or other materials provided with the distribution.
#
# * Neither the name of the project nor the names of its
#   contributors may be used to endorse or promote products derived from
#   this software without specific prior written permission.
#
# THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS"
# AND ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE
# IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE
# DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE
# FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL
# DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR
# SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER
# CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY,
# OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE
# OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.

import numpy as np
from matplotlib.colors import Colormap, ListedColormap

MISSING = "#e4e4e4"

_TABLES = {
    "rocket": (
        "02041903051a04051b05061c07071d08071e09081f0b09200c0a210e0a220f0b23110c24120c25140d26150e27160e28180f2919102a"
        "1b102b1c112c1e112d1f122e20122f2213302313312514322614332815342915352b16362c16372e16382f173931173a32183b33183c"
        "35183d36193e38193f3919403b1a413d1a423e1a43401b44411b45431b45441b46461c47471c48491c494a1c494c1c4a4e1d4b4f1d4c"
        "511d4c521d4d541d4e551d4e571e4f591e505a1e505c1e515d1e515f1e52611e52621e53641e53661e54671e54691f556a1f556c1f56"
        "6e1f566f1f57711f57731f57741e58761e58781e58791e597b1e597d1e597e1e59801e5a821e5a831e5a851d5a871d5a891d5a8a1d5b"
        "8c1d5b8e1c5b8f1c5b911c5b931c5b941b5b961b5b981b5b9a1a5b9b1a5b9d1a5b9f1a5ba1195aa2195aa4195aa6185aa7185aa91859"
        "ab1759ac1759ae1759b01658b11658b31657b51657b61657b81656ba1656bb1655bd1654bf1654c01653c21753c31752c51751c61851"
        "c81950c9194fcb1a4fcc1b4ecd1c4dcf1d4dd01e4cd11f4bd3214ad4224ad52349d72548d82647d92747da2946db2a45dc2c45de2d44"
        "df2f43e03042e13242e23441e33541e43740e53940e63b3fe63c3fe73e3ee8403ee9423ee9443dea463deb483deb4a3dec4c3dec4e3e"
        "ed503eed513eee533fee553fef5740ef5940ef5b41f05d42f05f43f06144f16345f16546f16747f16948f26b49f26d4af26e4bf2704d"
        "f2724ef3744ff37651f37852f37953f37b55f37d56f37f58f48059f4825bf4845cf4865ef4875ff48961f48b62f48d64f48e65f59067"
        "f59269f5936af5956cf5976ef5986ff59a71f59c73f59d74f59f76f5a178f5a27af5a47bf5a67df5a77ff5a981f5aa83f5ac85f5ae87"
        "f6af89f6b18bf6b28cf6b48ef6b690f6b792f6b995f6ba97f6bc99f6bd9bf6bf9df6c09ff6c2a1f6c3a3f6c5a5f6c7a8f6c8aaf6caac"
        "f7cbaef7cdb0f7ceb3f7cfb5f7d1b7f7d2b9f7d4bbf7d5bef8d7c0f8d8c2f8dac4f8dbc6f8ddc9f8decbf8e0cdf9e1cff9e3d1f9e4d3"
        "f9e6d6f9e7d8fae9dafaeadc"
    ),
    "mako": (
        "0b03050c04060d04070e05090f060a10070b11070d12080e130910140a11150b13160b14170c16180d17190e191a0f1a1b0f1b1c101d"
        "1d111e1e12201f122120132321142422152623152724162925172b26172c27182e28192f291a312a1a322b1b342b1c362c1d372d1d39"
        "2e1e3a2f1f3c2f1f3e30203f31214132224332224433234634244834254a35264b36264d36274f372850372952382a54382a55392b57"
        "3a2c593a2d5b3b2e5c3b2e5e3b2f603c30623c31633d32653d33673d33693e346b3e356c3e366e3f37703f38723f3974403975403a77"
        "403b79403c7b403d7c403e7e403f8040408240418340428540438640448840458940468b3f478c3f488e3f498f3f4b903e4c913e4d92"
        "3d4e933d4f943d50953c52963c53973b54973b55983b57993a58993a599a395a9a395b9b395d9b385e9b385f9c38609c37619d37629d"
        "37649d37659d36669e36679e36689e36699f366b9f356c9f356d9f356ea0356fa03570a03571a03573a03574a13575a13576a13577a1"
        "3478a23479a2347aa2347ca2347da3347ea3347fa33480a43481a43482a43483a43484a53486a53487a53488a53389a6338aa6338ba6"
        "338ca6338da7338ea73390a73391a73392a83393a83394a83495a83496a93497a93499a9349aa9349ba9349caa349daa359eaa359faa"
        "35a0aa35a1ab36a3ab36a4ab36a5ab37a6ab37a7ab37a8ab38a9ac38aaac39acac39adac3aaeac3bafac3bb0ac3cb1ac3db2ac3db3ac"
        "3eb4ac3fb6ad40b7ad41b8ad41b9ad42baad43bbad44bcad45bdad46bead48bfad49c1ad4ac2ad4bc3ad4dc4ad4ec5ac50c6ac51c7ac"
        "53c8ac55c9ac57caac59cbac5bccac5dcdac5fceac62cfac64d0ac67d1ac6ad1ac6dd2ac70d3ad73d4ad76d5ad79d5ae7cd6ae7fd7af"
        "82d7b085d8b088d9b18bd9b28edab290dbb393dbb496dcb599ddb69bdeb79edeb8a1dfb9a3e0baa6e0bba8e1bdabe2beade2bfafe3c1"
        "b2e4c2b4e4c3b6e5c5b9e6c6bbe7c8bde7cabfe8cbc1e9cdc3eacfc5ebd0c8ebd2caecd4ccedd5ceeed7d0eed9d2efdad4f0dcd6f1de"
        "d8f2dfdaf3e1dcf3e3def4e4"
    ),
    "crest": (
        "a4cc90a3cc90a2cb90a1cb90a0ca909fca909ec9909dc8909bc8909ac79099c79198c69197c69196c59195c59194c49193c49192c391"
        "90c3918fc2918ec2918dc1918cc1918bc0918ac09189bf9188be9186be9185bd9184bd9183bc9082bc9081bb9080bb907fba907dba90"
        "7cb9907bb9907ab89079b89078b79077b79076b69075b69074b59073b59071b49070b3906fb3906eb2906db2906cb1906bb1906ab090"
        "69b09068af9067af9067ae9066ad9065ad9064ac9063ac9062ab9061ab9060aa905fa9905ea9905da8905da8905ca7905ba7905aa690"
        "59a59058a59058a49057a49056a39055a29055a28f54a18f53a18f52a08f51a08f519f8f509e8f4f9e8f4f9d8f4e9d8f4d9c8f4c9b8f"
        "4c9b8f4b9a8f4a9a8f4a998f49988f48988f48978f47978f46968f46958f45958f44948e44948e43938e42938e42928e41918e40918e"
        "40908e3f908e3e8f8e3e8e8e3d8e8e3c8d8e3c8d8e3b8c8e3b8b8d3a8b8d398a8d398a8d38898d37888d37888d36878d35878d35868d"
        "34868d33858d33848d32848d31838c31838c30828c2f818c2f818c2e808c2e808c2d7f8c2c7e8c2c7e8c2b7d8c2a7d8c2a7c8c297b8c"
        "297b8c287a8b277a8b27798b26788b26788b25778b24778b24768b23758b23758b22748b22748b21738b21728a20728a20718a1f718a"
        "1f708a1f6f8a1e6f8a1e6e8a1e6e8a1d6d8a1d6c8a1d6c891d6b891c6a891c6a891c69891c69891c68891c67891c67881c66881c6588"
        "1c65881c64881c63881c63881c62871c61871c61871c60871d5f871d5f871d5e861d5d861d5d861d5c861e5b861e5b851e5a851e5985"
        "1f59851f58841f57841f5784205684205583205583205483215383215382215282225182225182225081234f81234f81234e80234d80"
        "244c80244c7f244b7f254a7f254a7e25497e26487e26487d26477d26467c27457c27457c27447b27437b28437a28427a28417a284179"
        "294079293f78293e78293e78293d772a3c772a3b762a3b762a3a762a39752a39752b38752b37742b36742b36732b35732b34732b3372"
        "2b33722c32722c31712c3071"
    ),
    "vlag": (
        "2369bc266abc296bbc2c6cbc2e6dbc316ebc336fbb3670bb3872bb3a73bb3d74bb3f75bb4176bb4377bb4578bb4779bb497abb4b7bbb"
        "4d7cbb4f7dbb517ebc537fbc5580bc5781bc5882bc5a83bc5c84bc5e86bd6087bd6188bd6389bd658abd668bbe688cbe6a8dbe6c8ebe"
        "6d8fbf6f90bf7191bf7292c07493c07694c07795c07996c17b98c17c99c27e9ac2809bc2819cc3839dc3849ec3869fc488a0c489a1c5"
        "8ba2c58ca3c68ea5c690a6c791a7c793a8c794a9c896aac898abc999acca9badca9cafcb9eb0cba0b1cca1b2cca3b3cda4b4cda6b5ce"
        "a8b7cfa9b8cfabb9d0acbad0aebbd1b0bcd2b1bed2b3bfd3b4c0d4b6c1d4b8c2d5b9c4d6bbc5d6bcc6d7bec7d8c0c8d8c1cad9c3cbda"
        "c5ccdbc6cddbc8cedcc9d0ddcbd1decdd2deced3dfd0d5e0d1d6e1d3d7e2d5d9e2d6dae3d8dbe4dadce5dbdee6dddfe7dfe0e8e0e2e8"
        "e2e3e9e4e4eae5e6ebe7e7ece8e8edeaeaeeecebefedecefefedf0f0eef1f2f0f2f3f1f2f4f2f3f5f2f4f6f3f4f7f4f4f8f4f4f9f5f4"
        "f9f5f4f9f5f4faf5f4faf4f3faf4f3faf3f2faf2f1faf1f0f9f0eff9efeef8edecf8ecebf7ebe9f6e9e8f6e8e6f5e6e5f4e4e3f3e3e1"
        "f3e1e0f2e0def1deddf0dcdbf0dbd9efd9d8eed8d6edd6d4edd4d3ecd3d1ebd1cfead0ceeacecce9cccbe8cbc9e8c9c7e7c8c6e6c6c4"
        "e6c5c2e5c3c1e4c1bfe4c0bee3bebce2bdbbe2bbb9e1bab7e0b8b6e0b6b4dfb5b3deb3b1deb2afddb0aedcafacdcadabdbaca9dbaaa8"
        "daa9a6d9a7a5d9a6a3d8a4a2d7a3a0d7a19ed6a09dd69e9bd59d9ad49b98d49997d39895d29694d29592d19391d1928fd0908ecf8f8c"
        "cf8d8bce8c89ce8a88cd8986cc8885cc8683cb8582ca8380ca827fc9807ec97f7cc87d7bc77c79c77a78c67976c57775c57673c47472"
        "c47370c3716fc2706ec26e6cc16d6bc06b69c06a68bf6866be6765be6564bd6462bc6261bc615fbb5f5eba5e5dba5c5bb95b5ab85958"
        "b85857b75656b65554b65353b55251b45050b34f4fb34d4db24b4cb14a4bb04849b04748af4546ae4445ad4244ad4042ac3f41ab3d40"
        "aa3b3eaa3a3da9383ca8363a"
    ),
    "icefire": (
        "bce6dab9e4d9b7e2d9b4e0d8b1ded7afdcd7acdad6a9d8d5a6d6d5a3d4d4a0d2d39ed1d39bcfd298cdd295cbd192c9d18fc7d08cc5d0"
        "89c4cf86c2cf83c0cf80bece7dbcce7abbce77b9cd74b7cd71b5cd6eb4cd6bb2cd68b0cd65aecd62accd5faacd5ca9cd5aa7cd57a5cd"
        "55a3cd52a1cd509fcd4d9dcd4b9bcd4999cd4797cd4595cd4393ce4191ce3f8fce3d8dce3b8bce3a89cf3987cf3885cf3783cf3680d0"
        "367ed0367ccf3779cf3777cf3875ce3972ce3b70cd3c6ecc3d6bca3f69c94067c74264c54362c34460c0455ebe465bbb4759b94857b6"
        "4855b34953b04952ac4950a9494ea5494da1494b9d484a9947489547479146468d45448a44438643428242407e413f7a403e773f3d73"
        "3e3c703d3a6c3b39693a386539376238365f36345c353359343255333152323050302f4d2f2e4a2e2d472d2c442c2b422b2a3f29293d"
        "28283b27273826263626253425243224233023222e22222c22212a212129212027201f26201f241f1f231f1e221f1e211f1e201e1e1f"
        "1e1e1e1e1e1e1f1e1e201d1e211d1e221d1e231d1e241d1e251d1e271d1f281d1f2a1e202b1e202d1e212f1e21301f22321f23342024"
        "3620243820253a21263c21273e222841222943232a45232b48242c4a242d4c252e4f252f5126305427315727325928335c28355e2836"
        "612937642938672a39692a3a6c2b3b6f2b3c722b3d752c3d782c3e7b2c3f7e2c40812d41842d41872d428a2d428d2d43902d43932e44"
        "962e44992e449c2e449f2e44a22e44a52f44a82f43ab3043ad3142b03142b33241b63340b8343fbb353fbd373ec0383dc2393cc43b3b"
        "c73d3ac93e39cb4038cd4238cf4437d14636d34936d54b35d74d34d85034da5234dc5433dd5733df5933e05c32e25e32e36133e46433"
        "e56633e76934e86c35e96f36ea7237eb7539eb783bec7a3ded7d3fee8042ee8345ef8648ef894bf08c4ef18f51f19154f29457f2975b"
        "f39a5ef49d62f49f66f5a269f5a56df6a871f6aa74f7ad78f7b07cf8b27ff9b583f9b887fabb8bfabd8efbc092fbc396fcc699fcc89d"
        "fdcba1fdcea4fed1a8fed3ac"
    ),
}


def color_map(name: str, *, missing: str = MISSING) -> Colormap:
    """Return one of seaborn's color maps, with a color for what is missing: light gray by default.

    Parameters
    ----------
    name : str
        Of rocket, mako, crest, vlag and icefire; with `_r` behind it, the map is reversed.
    missing : str
        A color, as matplotlib has them.

    Raises
    ------
    ValueError
        For any other name.
    """
    table = _TABLES.get(name.removesuffix("_r"))
    if table is None:
        raise ValueError(
            f"received {name!r} as a color map; expected one of {', '.join(_TABLES)}, or with _r behind it"
        )
    colors = np.frombuffer(bytes.fromhex(table), np.uint8).reshape(-1, 3) / 255
    return ListedColormap(colors[:: -1 if name.endswith("_r") else 1], name=name).with_extremes(bad=missing)
