package arrests

type forename struct{ name, nationality, language string }

type courtHouse struct{ code, name string }

// offenceKind has a weight among arrests, the chance that it leads to court, and for offences against property the highest value in
// pounds. The codes are made up in the style of those that courts use.
type offenceKind struct {
	code, title, act string
	weight           int
	court            float64
	value            float64
}

var stations = []Station{
	{"NM01", "Harrow Lane"}, {"NM02", "Castle Quay"}, {"NM04", "Saltergate"}, {"NM07", "Thornby Cross"}, {"NM09", "Port Ellery"}, {"NM12", "Wexmoor"},
}

var courts = []courtHouse{
	{"NMM01", "Northmere Magistrates' Court"}, {"NMM02", "Castle Quay Magistrates' Court"}, {"NMM03", "Wexmoor Magistrates' Court"},
	{"NMC01", "Northmere Crown Court"},
}

var youthCourt = courtHouse{"NMY01", "Northmere Youth Court"}

var towns = []string{"Northmere", "Castle Quay", "Saltergate", "Thornby", "Port Ellery", "Wexmoor", "Lower Ashcombe", "Bryn-y-Maes"}

var streets = []string{
	"Harrow Lane", "Victoria Terrace", "Canal Street", "The Shambles", "Mill Bank", "Albert Road", "Station Approach", "Orchard Close",
	"King's Parade", "Quarry Hill", "Ffordd y Môr", "St. Aldhelm's Row", "Foundry Yard", "Priory Walk",
}

var surnames = []string{
	"Ashworth", "Okonkwo", "Llewellyn", "O'Rourke", "Kaczmarek", "Nguyễn", "Patel", "Brennan", "Al-Hassani", "Featherstone", "Müller", "Ó Súilleabháin",
	"Silva", "Mwangi", "Hargreaves", "Popescu", "MacAllister", "Iyer", "Ferreira", "Whitlock", "Żurek", "Björnsson", "Chaudhry", "Dubois", "Entwistle",
	"Tanaka", "Yılmaz", "Novák", "Penhaligon", "Adeyemi", "Ştefănescu", "D'Costa", "Garside", "Haile", "Šimić", "Thackeray", "van der Meer", "Wójcik",
}

var maleNames = []forename{
	{"Daniel", "GBR", "en"}, {"Rhys", "GBR", "cy"}, {"Callum", "GBR", "en"}, {"Chukwuemeka", "NGA", "en"}, {"Paweł", "POL", "pl"}, {"Mohammed", "GBR", "en"},
	{"Seán", "IRL", "en"}, {"Ștefan", "ROU", "ro"}, {"Jürgen", "DEU", "de"}, {"Iestyn", "GBR", "cy"}, {"Arjun", "GBR", "en"}, {"Kwame", "GHA", "en"},
	{"João", "PRT", "pt"}, {"Lewis", "GBR", "en"}, {"Connor", "GBR", "en"}, {"Minh", "VNM", "vi"}, {"Ahmet", "TUR", "tr"}, {"François", "FRA", "fr"},
	{"Gareth", "GBR", "en"}, {"Ondřej", "CZE", "cs"}, {"Bartholomew", "GBR", "en"}, {"日向", "JPN", "ja"}, {"Олег", "UKR", "uk"}, {"يوسف", "SYR", "ar"},
}

var femaleNames = []forename{
	{"Siân", "GBR", "cy"}, {"Charlotte", "GBR", "en"}, {"Aoife", "IRL", "en"}, {"Zoë", "GBR", "en"}, {"Małgorzata", "POL", "pl"}, {"Ngozi", "NGA", "en"},
	{"Priya", "GBR", "en"}, {"Ioana", "ROU", "ro"}, {"Beatriz", "PRT", "pt"}, {"Keeley", "GBR", "en"}, {"Thị Hương", "VNM", "vi"}, {"Angharad", "GBR", "cy"},
}

var officerNames = []string{
	"Marsden, T.", "Okafor, B.", "Pryce-Jones, E.", "Dhillon, K.", "Sutcliffe, R.", "Ní Bhriain, C.", "Haddad, S.", "Clough, M.", "Wren, J.", "Abara, D.",
	"Kowalczyk, A.", "Stannard, P.",
}

var ethnicities = []string{"W1", "W1", "W1", "W1", "W9", "W3", "B1", "B2", "A1", "A2", "A9", "M1", "M9", "O9", "N3"}

var necessities = []string{
	"to allow the prompt and effective investigation", "to prevent the person from disappearing", "to ascertain the person's name", "to ascertain the person's address",
	"to prevent physical injury", "to prevent loss of or damage to property", "to protect a vulnerable person",
}

var notes = []string{
	"Appropriate adult requested; arrived within the hour.", "Seen by healthcare professional, fit to be detained and interviewed.",
	"Legal advice requested: duty solicitor called.", "Property: one mobile telephone, one set of keys, £14.20 in cash.",
	"Constant observation, level 3, reviewed hourly.", "Detainee said: \"I were nowhere near it\"; recorded on body-worn video.",
	"Dietary requirement: ḥalāl. Prayer mat supplied.", "Co-accused held at Castle Quay; no contact.",
	"Vehicle seized; recovery ref. CQ-RV/88\\26.", "Interview concluded\n2 tapes sealed\nno complaints",
}

var offenceKinds = []offenceKind{
	{"TH68010", "Theft from shop", "Theft Act 1968 s.1(1)", 16, 0.62, 900},
	{"TH68037", "Burglary, dwelling", "Theft Act 1968 s.9(1)(b)", 6, 0.78, 12_000},
	{"TH68142", "Theft of motor vehicle", "Theft Act 1968 s.1(1)", 4, 0.66, 28_000},
	{"TH68023", "Robbery", "Theft Act 1968 s.8(1)", 4, 0.84, 3_500},
	{"CJ88116", "Common assault", "Criminal Justice Act 1988 s.39", 15, 0.52, 0},
	{"OF61131", "Assault occasioning actual bodily harm", "Offences against the Person Act 1861 s.47", 9, 0.68, 0},
	{"OF61016", "Wounding with intent", "Offences against the Person Act 1861 s.18", 2, 0.95, 0},
	{"PO86031", "Threatening behaviour", "Public Order Act 1986 s.4A", 9, 0.55, 0},
	{"MD71524", "Possession of a controlled drug, class B", "Misuse of Drugs Act 1971 s.5(2)", 10, 0.38, 0},
	{"MD71230", "Possession with intent to supply, class A", "Misuse of Drugs Act 1971 s.5(3)", 4, 0.81, 0},
	{"RT88191", "Driving with excess alcohol", "Road Traffic Act 1988 s.5(1)(a)", 8, 0.93, 0},
	{"RT88334", "Driving while disqualified", "Road Traffic Act 1988 s.103(1)(b)", 3, 0.9, 0},
	{"CD71039", "Criminal damage", "Criminal Damage Act 1971 s.1(1)", 8, 0.49, 2_400},
	{"PC53001", "Having an article with a blade", "Criminal Justice Act 1988 s.139(1)", 4, 0.8, 0},
	{"FR06001", "Fraud by false representation", "Fraud Act 2006 s.2", 3, 0.4, 45_000},
	{"PH97006", "Harassment without violence", "Protection from Harassment Act 1997 s.2", 5, 0.45, 0},
	{"BA76002", "Failing to surrender to bail", "Bail Act 1976 s.6(1)", 5, 0.97, 0},
}
