"""Countries and their capitals: facts that even a very small instruct model may know."""

_PAIRS = """
Afghanistan:Kabul Albania:Tirana Algeria:Algiers Angola:Luanda Argentina:Buenos_Aires
Armenia:Yerevan Australia:Canberra Austria:Vienna Azerbaijan:Baku Bahrain:Manama
Bangladesh:Dhaka Barbados:Bridgetown Belarus:Minsk Belgium:Brussels Bhutan:Thimphu
Bosnia_and_Herzegovina:Sarajevo Botswana:Gaborone Brazil:Brasília Bulgaria:Sofia
Burkina_Faso:Ouagadougou Cambodia:Phnom_Penh Cameroon:Yaoundé Canada:Ottawa Chad:N'Djamena
Chile:Santiago China:Beijing Colombia:Bogotá Costa_Rica:San_José Croatia:Zagreb Cuba:Havana
Cyprus:Nicosia the_Czech_Republic:Prague Denmark:Copenhagen the_Dominican_Republic:Santo_Domingo
Ecuador:Quito Egypt:Cairo El_Salvador:San_Salvador Eritrea:Asmara Estonia:Tallinn
Ethiopia:Addis_Ababa Fiji:Suva Finland:Helsinki France:Paris Georgia:Tbilisi Germany:Berlin
Ghana:Accra Greece:Athens Guatemala:Guatemala_City Guinea:Conakry Guyana:Georgetown
Haiti:Port-au-Prince Honduras:Tegucigalpa Hungary:Budapest Iceland:Reykjavik India:New_Delhi
Indonesia:Jakarta Iran:Tehran Iraq:Baghdad Ireland:Dublin Italy:Rome Jamaica:Kingston Japan:Tokyo
Jordan:Amman Kazakhstan:Astana Kenya:Nairobi Kuwait:Kuwait_City Kyrgyzstan:Bishkek Laos:Vientiane
Latvia:Riga Lebanon:Beirut Liberia:Monrovia Libya:Tripoli Lithuania:Vilnius Madagascar:Antananarivo
Malawi:Lilongwe Malaysia:Kuala_Lumpur Mali:Bamako Malta:Valletta Mexico:Mexico_City
Moldova:Chișinău Mongolia:Ulaanbaatar Morocco:Rabat Mozambique:Maputo Myanmar:Naypyidaw
Namibia:Windhoek Nepal:Kathmandu the_Netherlands:Amsterdam New_Zealand:Wellington
Nicaragua:Managua Niger:Niamey Nigeria:Abuja North_Korea:Pyongyang Norway:Oslo Oman:Muscat
Pakistan:Islamabad Panama:Panama_City Papua_New_Guinea:Port_Moresby Paraguay:Asunción Peru:Lima
the_Philippines:Manila Poland:Warsaw Portugal:Lisbon Qatar:Doha Romania:Bucharest Russia:Moscow
Rwanda:Kigali Saudi_Arabia:Riyadh Senegal:Dakar Serbia:Belgrade Sierra_Leone:Freetown
Slovakia:Bratislava Slovenia:Ljubljana Somalia:Mogadishu South_Korea:Seoul South_Sudan:Juba
Spain:Madrid Sudan:Khartoum Suriname:Paramaribo Sweden:Stockholm Switzerland:Bern Syria:Damascus
Taiwan:Taipei Tajikistan:Dushanbe Tanzania:Dodoma Thailand:Bangkok Togo:Lomé Tunisia:Tunis
Turkey:Ankara Turkmenistan:Ashgabat Uganda:Kampala Ukraine:Kyiv the_United_Kingdom:London
Uruguay:Montevideo Uzbekistan:Tashkent Venezuela:Caracas Vietnam:Hanoi Yemen:Sana'a Zambia:Lusaka
Zimbabwe:Harare
"""
CAPITALS: dict[str, str] = {
    country.replace("_", " "): city.replace("_", " ")
    for country, city in (pair.split(":") for pair in _PAIRS.split())
}
SOUGHT = "What is the capital of {}?"
ASKED = (
    "Which city is the capital of {}?",
    "Name the capital city of {}.",
    "Tell me the capital of {}.",
    "What's the name of the capital city of {}?",
)
