BEGIN TRANSACTION;
CREATE TABLE deployments (
	endpoint TEXT NOT NULL, 
	model TEXT NOT NULL, 
	version TEXT NOT NULL, 
	generation INTEGER NOT NULL, 
	updated_s FLOAT NOT NULL, 
	spec TEXT NOT NULL, 
	PRIMARY KEY (endpoint), 
	FOREIGN KEY(model, version) REFERENCES versions (model, version)
);
INSERT INTO "deployments" VALUES('digits','digits','1.0.1',2,1.75000000149999856945e+09,'{"endpoint":"digits","model":"digits","version":"1.0.1","generation":2}');
CREATE TABLE journal (
	seq INTEGER NOT NULL, 
	at_s FLOAT NOT NULL, 
	actor TEXT NOT NULL, 
	action TEXT NOT NULL, 
	subject TEXT NOT NULL, 
	details TEXT NOT NULL, 
	prev_hash TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	PRIMARY KEY (seq)
);
INSERT INTO "journal" VALUES(1,1.75000000019999980924e+09,'local:root','register','digits@1.0.0','{"digest":"5e0ee6d6f6e5ebffce9de10691d4d9ec31f3e6489d6175fc44a62f875ba48aa8","format":"onnx","ordinal":1,"trusts_code":false}','0000000000000000000000000000000000000000000000000000000000000000','17b6fa15660743a992c1ee7e039331b6d731fa168ff62c323ce58963a1fba792');
INSERT INTO "journal" VALUES(2,1.75000000039999961849e+09,'local:root','register','digits@1.0.1','{"against":"1.0.0","changes":[],"digest":"852350f95f42b7943004d3c88843b6bd0db1393d1578be0ba18bad207a4a871e","format":"onnx","ordinal":2,"trusts_code":false}','17b6fa15660743a992c1ee7e039331b6d731fa168ff62c323ce58963a1fba792','a519af45ef8c831495f09c489efd292d35dafe9138eb8ffcd1d17c5fdc8b5e11');
INSERT INTO "journal" VALUES(3,1.75000000059999942774e+09,'local:root','register','digits@2.0.0','{"against":"1.0.1","changes":["output ''y'' has shape [-1, 3], it had [-1, 2]"],"digest":"70780b9b729fbe38c1cdb11633a8115163c8062a66fcf175b9cdeca173301733","format":"onnx","ordinal":3,"trusts_code":false}','a519af45ef8c831495f09c489efd292d35dafe9138eb8ffcd1d17c5fdc8b5e11','a020964f0d6bd293a553d51bee4772395f4dc186e6d22157f0c3e208736c2110');
INSERT INTO "journal" VALUES(4,1.75000000079999923708e+09,'local:root','register','iris@1.0.0','{"digest":"5e0ee6d6f6e5ebffce9de10691d4d9ec31f3e6489d6175fc44a62f875ba48aa8","format":"onnx","ordinal":1,"trusts_code":false}','a020964f0d6bd293a553d51bee4772395f4dc186e6d22157f0c3e208736c2110','28e96192e6b95b2284d9da02ec6c01d02f8d036aeae1c0e8a6fcc1f9c6bd391f');
INSERT INTO "journal" VALUES(5,1.75000000099999904632e+09,'local:root','register','iris@1.0.1','{"against":"1.0.0","changes":[],"digest":"852350f95f42b7943004d3c88843b6bd0db1393d1578be0ba18bad207a4a871e","format":"onnx","ordinal":2,"trusts_code":false}','28e96192e6b95b2284d9da02ec6c01d02f8d036aeae1c0e8a6fcc1f9c6bd391f','af6dc5c0a2d12735f5ddd134912cffe76c06465bde33975d3fe5e42281409331');
INSERT INTO "journal" VALUES(6,1.75000000119999885557e+09,'local:root','register','iris@2.0.0','{"against":"1.0.1","changes":["output ''y'' has shape [-1, 3], it had [-1, 2]"],"digest":"70780b9b729fbe38c1cdb11633a8115163c8062a66fcf175b9cdeca173301733","format":"onnx","ordinal":3,"trusts_code":false}','af6dc5c0a2d12735f5ddd134912cffe76c06465bde33975d3fe5e42281409331','b1465b1c4cbbadeebe8840538a0f0e7c8c07f167296a381a385ae8e263766349');
INSERT INTO "journal" VALUES(7,1.75000000139999866482e+09,'local:root','deploy','digits','{"after":{"endpoint":"digits","generation":1,"model":"digits","version":"1.0.0"},"before":null}','b1465b1c4cbbadeebe8840538a0f0e7c8c07f167296a381a385ae8e263766349','7d7f1160ffd9e6fe23a0d2baf800ada7a2e90b29d549d6d6140a9472937173df');
INSERT INTO "journal" VALUES(8,1.75000000159999847407e+09,'local:root','deploy','digits','{"after":{"endpoint":"digits","generation":2,"model":"digits","version":"1.0.1"},"before":{"endpoint":"digits","generation":1,"model":"digits","version":"1.0.0"}}','7d7f1160ffd9e6fe23a0d2baf800ada7a2e90b29d549d6d6140a9472937173df','79d87219b3cad669bd8706636c3deed9d66b2fbc336039daa37c65c06bb29795');
INSERT INTO "journal" VALUES(9,1.75000000179999828332e+09,'local:root','deploy','iris','{"after":{"endpoint":"iris","generation":3,"model":"iris","version":"1.0.0"},"before":null}','79d87219b3cad669bd8706636c3deed9d66b2fbc336039daa37c65c06bb29795','8c41a016a2d8da26effffc87f197650bd44913ca9ed9675295ea6124192d6655');
INSERT INTO "journal" VALUES(10,1.75000000189999818794e+09,'local:root','undeploy','iris','{"before":{"endpoint":"iris","generation":3,"model":"iris","version":"1.0.0"}}','8c41a016a2d8da26effffc87f197650bd44913ca9ed9675295ea6124192d6655','9124b1d3ecd6e81134b774a9aa81ad6f03617fbd807dd4307a18b2112e37274a');
INSERT INTO "journal" VALUES(11,1.75000000209999799732e+09,'local:root','create_token','eujrihac','{"name":"ann","role":"operator","tenant":"default"}','9124b1d3ecd6e81134b774a9aa81ad6f03617fbd807dd4307a18b2112e37274a','c689533eb5d8027379ac196214c7bf7b14ab17f0f5ee027619abb0ab8b81d445');
INSERT INTO "journal" VALUES(12,1.75000000229999780657e+09,'local:root','create_token','d25hvjoo','{"expires_s":1750003602.199998,"name":"bob","role":"predictor","tenant":"default"}','c689533eb5d8027379ac196214c7bf7b14ab17f0f5ee027619abb0ab8b81d445','016179fefd0c8107530a43f99ecdfd2fd4901e10fd42614300bab23adcf864f6');
INSERT INTO "journal" VALUES(13,1.7500000023999977112e+09,'local:root','revoke_token','d25hvjoo','{"expires_s":1750003602.199998,"name":"bob","role":"predictor","tenant":"default"}','016179fefd0c8107530a43f99ecdfd2fd4901e10fd42614300bab23adcf864f6','074fe28324322ff2ec86d76197e07e754f39ccdc144d5ea6e4d005c51ff55d73');
INSERT INTO "journal" VALUES(14,1.75000000259999752044e+09,'local:root','create_webhook','notify','{"allow_private":false,"created_s":1750000002.4999976,"id":"55840c89fec27191","name":"notify","tenant":"","url":"https://example.com/hook"}','074fe28324322ff2ec86d76197e07e754f39ccdc144d5ea6e4d005c51ff55d73','4467233034d697ec114070c8aafc6901545ece6f10178e06ff15707187458d30');
INSERT INTO "journal" VALUES(15,1.75000000269999742507e+09,'größe ☃','note','a "quoted" \ 0 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":0.1,"n":0,"none":null,"t":"é\n\t"}','4467233034d697ec114070c8aafc6901545ece6f10178e06ff15707187458d30','5cd2e044f49230f3c44342836ad456bdb56d95e4a84c75dcad9f43794a0b3969');
INSERT INTO "journal" VALUES(16,1.75000000279999732969e+09,'größe ☃','note','a "quoted" \ 1 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":0.30000000000000004,"n":1,"none":null,"t":"é\n\t"}','5cd2e044f49230f3c44342836ad456bdb56d95e4a84c75dcad9f43794a0b3969','6d0ae4bb7859a7810dee3e443db6ccff2ab28f0c3984d5c1f8cfb96fadcb1c09');
INSERT INTO "journal" VALUES(17,1.75000000289999723432e+09,'größe ☃','note','a "quoted" \ 2 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":0.5,"n":2,"none":null,"t":"é\n\t"}','6d0ae4bb7859a7810dee3e443db6ccff2ab28f0c3984d5c1f8cfb96fadcb1c09','ca50fb42d5d6da547d1d320db01b819ced61ba02153823b48913bd131251c038');
INSERT INTO "journal" VALUES(18,1.75000000299999713894e+09,'größe ☃','note','a "quoted" \ 3 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":0.7000000000000001,"n":3,"none":null,"t":"é\n\t"}','ca50fb42d5d6da547d1d320db01b819ced61ba02153823b48913bd131251c038','41c795d27a651f4ddd8c68b51d5cbfbcc45ec6a589430645e7fcf161ee92a0de');
INSERT INTO "journal" VALUES(19,1.75000000309999704357e+09,'größe ☃','note','a "quoted" \ 4 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":0.9,"n":4,"none":null,"t":"é\n\t"}','41c795d27a651f4ddd8c68b51d5cbfbcc45ec6a589430645e7fcf161ee92a0de','72fd4e51e9dc75c90b8e7450bd7b0682cbf349325feb7d95313ad61d5de830f9');
INSERT INTO "journal" VALUES(20,1.75000000319999694819e+09,'größe ☃','note','a "quoted" \ 5 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":1.1,"n":5,"none":null,"t":"é\n\t"}','72fd4e51e9dc75c90b8e7450bd7b0682cbf349325feb7d95313ad61d5de830f9','fc482051a5951ffc4a898601068e0ca5b13dbbc687bdbafdea325a2c07aebf6b');
INSERT INTO "journal" VALUES(21,1.75000000329999685294e+09,'größe ☃','note','a "quoted" \ 6 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":1.3000000000000003,"n":6,"none":null,"t":"é\n\t"}','fc482051a5951ffc4a898601068e0ca5b13dbbc687bdbafdea325a2c07aebf6b','41fa242351d304adf10998305eb9e9755b7ddcef29e967792cb0441f5edca4cb');
INSERT INTO "journal" VALUES(22,1.75000000339999675757e+09,'größe ☃','note','a "quoted" \ 7 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":1.5000000000000002,"n":7,"none":null,"t":"é\n\t"}','41fa242351d304adf10998305eb9e9755b7ddcef29e967792cb0441f5edca4cb','7b0df4a4464b59d0ed7032559ed15d8b769e8a7c3c1ec33fcbc181c2fd90c91c');
INSERT INTO "journal" VALUES(23,1.75000000349999666219e+09,'größe ☃','note','a "quoted" \ 8 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":1.7000000000000002,"n":8,"none":null,"t":"é\n\t"}','7b0df4a4464b59d0ed7032559ed15d8b769e8a7c3c1ec33fcbc181c2fd90c91c','41d0196a8a392cf82b88d46917d406dcab606daabba1c797523b363a4ade5930');
INSERT INTO "journal" VALUES(24,1.75000000359999656682e+09,'größe ☃','note','a "quoted" \ 9 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":1.9000000000000001,"n":9,"none":null,"t":"é\n\t"}','41d0196a8a392cf82b88d46917d406dcab606daabba1c797523b363a4ade5930','2d68a34cb77e7d84f7b5607f65528df9a43c57f444871587ead91a2599c8d870');
INSERT INTO "journal" VALUES(25,1.75000000369999647144e+09,'größe ☃','note','a "quoted" \ 10 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":2.1,"n":10,"none":null,"t":"é\n\t"}','2d68a34cb77e7d84f7b5607f65528df9a43c57f444871587ead91a2599c8d870','bb5c223c356d8019a44cf24d412d151198bfb8fd037879351fb17a564d145e34');
INSERT INTO "journal" VALUES(26,1.75000000379999637607e+09,'größe ☃','note','a "quoted" \ 11 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":2.3000000000000003,"n":11,"none":null,"t":"é\n\t"}','bb5c223c356d8019a44cf24d412d151198bfb8fd037879351fb17a564d145e34','a0d07e13322ad6feb6097989f7ff1424932dbf408faeba962101bff3af99fd66');
INSERT INTO "journal" VALUES(27,1.75000000389999628069e+09,'größe ☃','note','a "quoted" \ 12 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":2.5000000000000004,"n":12,"none":null,"t":"é\n\t"}','a0d07e13322ad6feb6097989f7ff1424932dbf408faeba962101bff3af99fd66','a36c4f671cc0be93b7c949ae2ef46638fe63354c8b96de750cd9e0b7e0fc412f');
INSERT INTO "journal" VALUES(28,1.75000000399999618531e+09,'größe ☃','note','a "quoted" \ 13 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":2.7,"n":13,"none":null,"t":"é\n\t"}','a36c4f671cc0be93b7c949ae2ef46638fe63354c8b96de750cd9e0b7e0fc412f','0f04218b9d824b169ad07105ba2e85cde0e5a66e0161098fb25e666328de49fc');
INSERT INTO "journal" VALUES(29,1.75000000409999608994e+09,'größe ☃','note','a "quoted" \ 14 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":2.9000000000000004,"n":14,"none":null,"t":"é\n\t"}','0f04218b9d824b169ad07105ba2e85cde0e5a66e0161098fb25e666328de49fc','f6de5864327d43a58f5b6c2f19b925648a558a96a36b76d29e7f7f74b4afce31');
INSERT INTO "journal" VALUES(30,1.75000000419999599456e+09,'größe ☃','note','a "quoted" \ 15 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":3.1,"n":15,"none":null,"t":"é\n\t"}','f6de5864327d43a58f5b6c2f19b925648a558a96a36b76d29e7f7f74b4afce31','13836407777d99aeb6fbc0e3db4c32204f9c5b24daa205912838317fea2f7dfe');
INSERT INTO "journal" VALUES(31,1.75000000429999589919e+09,'größe ☃','note','a "quoted" \ 16 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":3.3000000000000003,"n":16,"none":null,"t":"é\n\t"}','13836407777d99aeb6fbc0e3db4c32204f9c5b24daa205912838317fea2f7dfe','7ab90d416a9f52629ac81a21131c00bfffe46beb1872d780e200ed9b672f833d');
INSERT INTO "journal" VALUES(32,1.75000000439999580381e+09,'größe ☃','note','a "quoted" \ 17 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":3.5000000000000004,"n":17,"none":null,"t":"é\n\t"}','7ab90d416a9f52629ac81a21131c00bfffe46beb1872d780e200ed9b672f833d','ec34926cd7bc8320c67a716d31b1af59bbf249853e6cae0af67c946b961f13b4');
INSERT INTO "journal" VALUES(33,1.75000000449999570844e+09,'größe ☃','note','a "quoted" \ 18 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":3.7,"n":18,"none":null,"t":"é\n\t"}','ec34926cd7bc8320c67a716d31b1af59bbf249853e6cae0af67c946b961f13b4','d8c4c8bac6d3b35f6054bac3d6f41b2583b4334f5b80a3cde06d873192636408');
INSERT INTO "journal" VALUES(34,1.75000000459999561315e+09,'größe ☃','note','a "quoted" \ 19 ','{"big":1e+300,"deep":{"a":{},"z":[1,2]},"f":3.9000000000000004,"n":19,"none":null,"t":"é\n\t"}','d8c4c8bac6d3b35f6054bac3d6f41b2583b4334f5b80a3cde06d873192636408','93ee61560a10e7d9a23b7d1537ea7ba52bbd92f311d85e1fb44ad6507c5e9739');
CREATE TABLE journal_head (
	id INTEGER NOT NULL CHECK (id = 1), 
	seq INTEGER NOT NULL, 
	hash TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "journal_head" VALUES(1,34,'93ee61560a10e7d9a23b7d1537ea7ba52bbd92f311d85e1fb44ad6507c5e9739');
CREATE TABLE models (
	name TEXT NOT NULL, 
	created_s FLOAT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "models" VALUES('digits',1750000000.1);
INSERT INTO "models" VALUES('iris',1.75000000069999933245e+09);
CREATE TABLE revision (
	id INTEGER NOT NULL CHECK (id = 1), 
	value INTEGER NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "revision" VALUES(1,8);
CREATE TABLE schema (
	id INTEGER NOT NULL CHECK (id = 1), 
	version INTEGER NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "schema" VALUES(1,3);
CREATE TABLE tokens (
	id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	role TEXT NOT NULL, 
	tenant TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	created_s FLOAT NOT NULL, 
	expires_s FLOAT, 
	PRIMARY KEY (id)
);
INSERT INTO "tokens" VALUES('eujrihac','ann','operator','default','94aeb3ba0e65882d719873c9339316fb058d4bb2f0d587231c74133e0e15c98d',1.7500000019999980927e+09,NULL);
CREATE TABLE versions (
	model TEXT NOT NULL, 
	version TEXT NOT NULL, 
	ordinal INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	format TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	created_s FLOAT NOT NULL, 
	created_by TEXT NOT NULL, 
	manifest TEXT NOT NULL, 
	PRIMARY KEY (model, version), 
	UNIQUE (model, ordinal), 
	FOREIGN KEY(model) REFERENCES models (name)
);
INSERT INTO "versions" VALUES('digits','1.0.0',1,'5e0ee6d6f6e5ebffce9de10691d4d9ec31f3e6489d6175fc44a62f875ba48aa8','onnx','predict',1750000000.1,'local:root','{"model":"digits","version":"1.0.0","ordinal":1,"digest":"5e0ee6d6f6e5ebffce9de10691d4d9ec31f3e6489d6175fc44a62f875ba48aa8","format":"onnx","files":[{"path":"model.onnx","sha256":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size_bytes":10}],"signature":{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1,2]}]}}');
INSERT INTO "versions" VALUES('digits','1.0.1',2,'852350f95f42b7943004d3c88843b6bd0db1393d1578be0ba18bad207a4a871e','onnx','predict',1.75000000029999971387e+09,'local:root','{"model":"digits","version":"1.0.1","ordinal":2,"digest":"852350f95f42b7943004d3c88843b6bd0db1393d1578be0ba18bad207a4a871e","format":"onnx","files":[{"path":"model.onnx","sha256":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","size_bytes":10}],"signature":{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1,2]}]}}');
INSERT INTO "versions" VALUES('digits','2.0.0',3,'70780b9b729fbe38c1cdb11633a8115163c8062a66fcf175b9cdeca173301733','onnx','predict',1.75000000049999952312e+09,'local:root','{"model":"digits","version":"2.0.0","ordinal":3,"digest":"70780b9b729fbe38c1cdb11633a8115163c8062a66fcf175b9cdeca173301733","format":"onnx","files":[{"path":"model.onnx","sha256":"cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc","size_bytes":10}],"signature":{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1,3]}]}}');
INSERT INTO "versions" VALUES('iris','1.0.0',1,'5e0ee6d6f6e5ebffce9de10691d4d9ec31f3e6489d6175fc44a62f875ba48aa8','onnx','predict',1.75000000069999933245e+09,'local:root','{"model":"iris","version":"1.0.0","ordinal":1,"digest":"5e0ee6d6f6e5ebffce9de10691d4d9ec31f3e6489d6175fc44a62f875ba48aa8","format":"onnx","files":[{"path":"model.onnx","sha256":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size_bytes":10}],"signature":{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1,2]}]}}');
INSERT INTO "versions" VALUES('iris','1.0.1',2,'852350f95f42b7943004d3c88843b6bd0db1393d1578be0ba18bad207a4a871e','onnx','predict',1.7500000008999991417e+09,'local:root','{"model":"iris","version":"1.0.1","ordinal":2,"digest":"852350f95f42b7943004d3c88843b6bd0db1393d1578be0ba18bad207a4a871e","format":"onnx","files":[{"path":"model.onnx","sha256":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","size_bytes":10}],"signature":{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1,2]}]}}');
INSERT INTO "versions" VALUES('iris','2.0.0',3,'70780b9b729fbe38c1cdb11633a8115163c8062a66fcf175b9cdeca173301733','onnx','predict',1.75000000109999895095e+09,'local:root','{"model":"iris","version":"2.0.0","ordinal":3,"digest":"70780b9b729fbe38c1cdb11633a8115163c8062a66fcf175b9cdeca173301733","format":"onnx","files":[{"path":"model.onnx","sha256":"cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc","size_bytes":10}],"signature":{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]}],"outputs":[{"name":"y","datatype":"FP32","shape":[-1,3]}]}}');
CREATE TABLE webhooks (
	name TEXT NOT NULL, 
	id TEXT NOT NULL, 
	url TEXT NOT NULL, 
	tenant TEXT NOT NULL, 
	allow_private BOOLEAN NOT NULL, 
	created_s FLOAT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "webhooks" VALUES('notify','55840c89fec27191','https://example.com/hook','',0,1.75000000249999761582e+09);
CREATE INDEX ix_tokens_name ON tokens (name);
CREATE INDEX ix_versions_digest ON versions (digest);
CREATE TRIGGER versions_no_update BEFORE UPDATE ON versions BEGIN SELECT RAISE(ABORT, 'rows of versions are written once'); END;
CREATE TRIGGER versions_no_delete BEFORE DELETE ON versions BEGIN SELECT RAISE(ABORT, 'rows of versions are written once'); END;
CREATE TRIGGER journal_no_update BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, 'rows of journal are written once'); END;
CREATE TRIGGER journal_no_delete BEFORE DELETE ON journal BEGIN SELECT RAISE(ABORT, 'rows of journal are written once'); END;
COMMIT;
